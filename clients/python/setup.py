"""Generates the stubs of the contract when the package is built."""

import shutil
from importlib.metadata import requires
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
# In a source distribution the contract lies beside this file.
PROTO = next(path for path in (HERE / "proto", HERE / "../../proto") if path.is_dir())
FILES = ["jobwatch/v1/job.proto", "jobwatch/v1/job_status_service.proto"]


class Generate(build_py):
    def run(self):
        super().run()
        import grpc_tools
        from grpc_tools import protoc

        out = Path(self.build_lib)
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        includes = [f"-I{PROTO}", f"-I{well_known}"]
        outputs = [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *includes, *outputs, *FILES]):
            raise SystemExit("the contract could not be compiled")
        (out / "jobwatch/v1/py.typed").touch()


class WithContract(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        licence = Path(base_dir, "LICENSE")
        licence.unlink(missing_ok=True)
        shutil.copyfile(HERE / "LICENSE", licence)
        for file in FILES:
            copy = Path(base_dir, "proto", file)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROTO / file, copy)


def dependencies():
    """Generated code needs at least the versions of grpcio and protobuf that its generator needs."""
    generator = [name for name in requires("grpcio-tools") or [] if name.startswith(("grpcio", "protobuf"))]
    return [*generator, "googleapis-common-protos>=1.66"]


setup(
    cmdclass={"build_py": Generate, "sdist": WithContract},
    install_requires=dependencies(),
)
