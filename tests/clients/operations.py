"""Waits for jobs with the operation futures of google-api-core.

    python tests/clients/operations.py GATEWAY PROTO_DIRECTORY SIMULATOR RUNNING FAILING MISSING

SIMULATOR is the URL of the simulated vendor. The last three are names of operations: of a job
that runs until the simulator is called, of one that has failed, and of none. The types of metadata and results are generated; all else is Google's.
"""

import importlib
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import grpc_tools
from google.api_core import exceptions, operation, operations_v1
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import proto_reflection_descriptor_database
from grpc_tools import protoc

from checks import check, finish, simulator


def generate(proto, out):
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{proto}", f"-I{well_known}", f"--python_out={out}"]
    return protoc.main(["protoc", *arguments, "jobwatch/v1/job.proto"])


def interface(file):
    """Messages and methods of a file, without options and what belongs to them."""
    messages = {
        message.name: sorted(
            (field.number, field.name, field.label, field.type, field.type_name, field.HasField("oneof_index"))
            for field in message.field
        )
        for message in file.message_type
        if message.name != "OperationInfo"
    }
    methods = {
        (service.name, method.name, method.input_type, method.output_type)
        for service in file.service
        for method in service.method
    }
    return file.package, messages, methods


def reason(error):
    """The reason in the details of an operation's error or a call's."""
    for detail in error.details:
        if isinstance(detail, error_details_pb2.ErrorInfo):
            return detail.reason
    info = error_details_pb2.ErrorInfo()
    next(detail for detail in error.details if detail.Is(info.DESCRIPTOR)).Unpack(info)
    return info.reason


def raised(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")


def main(address, proto, vendor, running, failing, missing):
    with tempfile.TemporaryDirectory() as out:
        check("types can be generated", generate(proto, out), 0)
        sys.path.insert(0, out)
        jobs = importlib.import_module("jobwatch.v1.job_pb2")

    with grpc.insecure_channel(address) as channel:
        database = proto_reflection_descriptor_database.ProtoReflectionDescriptorDatabase(channel)
        served = database.FindFileByName("google/longrunning/operations.proto")
        published = descriptor_pb2.FileDescriptorProto()
        operations_pb2.DESCRIPTOR.CopyToProto(published)
        check("the interface is the published one", interface(served), interface(published))

        client = operations_v1.OperationsClient(channel)

        def future(name):
            begun = client.get_operation(name)
            return operation.from_gapic(begun, client, jobs.JobResult, metadata_type=jobs.JobStatus)

        waiting = future(running)
        check("a job that runs is not done", waiting.done(), False)
        check("its metadata is the status", waiting.metadata.state, jobs.JOB_STATE_RUNNING)
        timer = threading.Timer(1, simulator, (vendor, f"jobs/{running.rsplit('/', 1)[1]}/finish"))
        timer.start()
        result = waiting.result(timeout=60)
        timer.join()
        check("its result is the vendor's", (result.data, result.content_type.split(";")[0]), (b"24 tables", "text/plain"))
        check("its metadata is the last status", waiting.metadata.state, jobs.JOB_STATE_SUCCEEDED)
        check("it has its own name", waiting.operation.name, running)

        failed = future(failing)
        error = failed.exception(timeout=60)
        check("the error has the vendor's words", error.message, "no such column")
        check("and says that the job failed", reason(failed.operation.error), "JOB_FAILED")
        check("and so does the exception", type(raised(exceptions.GoogleAPICallError, failed.result)), type(error))

        error = raised(exceptions.NotFound, lambda: client.get_operation(missing))
        check("a job that there is not is not found", reason(error), "JOB_NOT_FOUND")
        error = raised(exceptions.MethodNotImplemented, lambda: client.cancel_operation(running))
        check("no job is cancelled", reason(error), "JOBS_ARE_READ_ONLY")
        error = raised(exceptions.MethodNotImplemented, lambda: client.delete_operation(running))
        check("no job is deleted", reason(error), "JOBS_ARE_READ_ONLY")
        error = raised(exceptions.InvalidArgument, lambda: client.get_operation("operations/1"))
        check("another name is refused", "write backends/BACKEND/jobs/JOB_ID" in error.message, True)
        begun = future(running)
        listed = {listed.name: listed.done for listed in client.list_operations("backends/-", "")}
        check("a list has what is followed now, which is nothing", listed, {})
        check("an operation that has ended is done at once", begun.done(), True)
    finish()


main(*sys.argv[1:])
