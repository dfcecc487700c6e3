"""A collector that speaks OTLP over gRPC and keeps the spans it receives."""

import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on a free port of loopback, from its start to `stop`."""

    def __init__(self):
        self.lock = threading.Lock()
        self.received = []
        self.refuses = False
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Export(self, request, context):
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "spans are refused")
        with self.lock:
            for resource_spans in request.resource_spans:
                service = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
                for scope_spans in resource_spans.scope_spans:
                    self.received.extend((service.get("service.name"), span) for span in scope_spans.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, name):
        """The spans with this name, of the service jobwatch."""
        with self.lock:
            return [span for service, span in self.received if (service, span.name) == ("jobwatch", name)]

    def count(self):
        with self.lock:
            return len(self.received)

    def stop(self):
        self.server.stop(1).wait(5)
