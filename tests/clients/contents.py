"""Checks what the archives of a package hold, and what they say of themselves.

    python tests/clients/contents.py ARCHIVE...
"""

import email
import json
import re
import sys
import tarfile
import zipfile

FILES = {
    "whl": [
        "jobwatch_client/__init__.py", "jobwatch_client/aio.py", "jobwatch_client/py.typed", "jobwatch/v1/py.typed",
        "jobwatch/v1/job_pb2.py", "jobwatch/v1/job_pb2.pyi", "jobwatch/v1/job_status_service_pb2_grpc.py", "LICENSE",
    ],
    "tar.gz": [
        "README.md", "LICENSE", "pyproject.toml", "setup.py", "proto/jobwatch/v1/job.proto",
        "src/jobwatch_client/py.typed",
    ],
    "tgz": [
        "README.md", "LICENSE", "package.json", "dist/index.js", "dist/index.d.ts", "dist/v1.js", "dist/v1.d.ts",
        "dist/gen/jobwatch/v1/job_pb.js",
    ],
}


def read(archive):
    """The files of an archive by their paths."""
    if archive.endswith(".whl"):
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name).decode() for name in opened.namelist()}
    with tarfile.open(archive) as opened:
        files = [member for member in opened.getmembers() if not member.isdir()]
        # A link would point to nothing where it is unpacked.
        assert all(member.isfile() for member in files), f"{archive} holds a link"
        return {member.name: opened.extractfile(member).read().decode() for member in files}


def ending(files, end):
    return next((text for path, text in files.items() if path == end or path.endswith("/" + end)), None)


def check_python(metadata):
    fields = email.message_from_string(metadata)
    assert fields["License-Expression"] == "Apache-2.0", fields["License-Expression"]
    assert fields["Author"] == "The jobwatch authors", fields["Author"]
    assert fields["Requires-Python"] == ">=3.10", fields["Requires-Python"]
    assert "grpc" in fields["Keywords"], fields["Keywords"]
    assert "Typing :: Typed" in fields.get_all("Classifier"), fields.get_all("Classifier")
    assert any(name.startswith("grpcio>=") for name in fields.get_all("Requires-Dist")), fields.get_all("Requires-Dist")
    return fields.get_payload()


def check_npm(package):
    assert package["license"] == "Apache-2.0" and package["author"] == "The jobwatch authors", package
    assert package["engines"] == {"node": ">=20"}, package["engines"]
    assert "grpc" in package["keywords"] and "scripts" in package, package
    assert "devDependencies" in package and set(package["dependencies"]) == {"@bufbuild/protobuf", "@grpc/grpc-js"}


def main(archives):
    for archive in archives:
        kind = next(kind for kind in FILES if archive.endswith("." + kind))
        files = read(archive)
        missing = [name for name in FILES[kind] if ending(files, name) is None]
        assert not missing, f"{archive} lacks {missing}"
        tests = [path for path in files if re.search(r"(^|/)(tests?|node_modules|__pycache__)/", path)]
        assert not tests, f"{archive} holds {tests}"
        if kind == "tgz":
            check_npm(json.loads(ending(files, "package.json")))
            readme = ending(files, "README.md")
        else:
            readme = check_python(ending(files, "METADATA" if kind == "whl" else "PKG-INFO"))
        assert ".wait(\"immuta-prod/42\"" in readme, f"the README in {archive} has no example"
        # Where a package is shown there is no repository beside it.
        assert not re.search(r"\]\((?!https?://|#)", readme), f"a link of the README in {archive} is relative"


if __name__ == "__main__":
    main(sys.argv[1:])
