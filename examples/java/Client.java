import com.google.gson.Gson;
import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.io.OutputStream;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Consumer;
import jobwatch.v1.*;
import jobwatch.v1.JobStatusServiceGrpc.JobStatusServiceBlockingStub;

/**
 * Waits for a job, watches it, or writes its result, through restarts of the gateway.
 *
 * <pre>java Client 127.0.0.1:50051 immuta-prod/42 wait|watch|result</pre>
 */
public class Client {
  static final String SERVICE_CONFIG = """
      {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{
          "name": [
            {"service": "jobwatch.v1.JobStatusService", "method": "GetJobStatus"},
            {"service": "jobwatch.v1.JobStatusService", "method": "BatchGetStatuses"}
          ],
          "waitForReady": true,
          "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "1s",
            "maxBackoff": "10s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"]
          }
        }]
      }""";

  /** The status with which the job ended, or the newest one after an hour. */
  static JobStatus wait(JobStatusServiceBlockingStub stub, JobRef job) {
    Duration hour = Duration.newBuilder().setSeconds(3600).build();
    GetJobStatusRequest request = GetJobStatusRequest.newBuilder().setJob(job).setWait(hour).build();
    return stub.getJobStatus(request).getStatus();
  }

  /** Calls {@code each} with every status, the last of which is terminal. */
  static void watch(JobStatusServiceBlockingStub stub, JobRef job, Consumer<JobStatus> each)
      throws InterruptedException {
    WatchJobRequest.Builder request = WatchJobRequest.newBuilder().setJob(job);
    for (int failures = 0; ; failures++) {
      try {
        var events = stub.watchJob(request.build());
        while (events.hasNext()) {
          WatchJobResponse event = events.next();
          request.setResumeToken(event.getResumeToken());
          failures = 0;
          if (event.hasStatus()) each.accept(event.getStatus());
        }
        return;
      } catch (StatusRuntimeException error) {
        if (!resumes(error)) throw error;
        long backoff = (long) ((0.5 + ThreadLocalRandom.current().nextDouble()) * (250 << Math.min(failures, 5)));
        Thread.sleep(Math.max(backoff, requestedMillis(error)));
      }
    }
  }

  /** Whether a call goes on after this error. */
  static boolean resumes(StatusRuntimeException error) {
    Code code = error.getStatus().getCode();
    return switch (code) {
      case UNAVAILABLE, DEADLINE_EXCEEDED -> true;
      case UNKNOWN, INTERNAL, CANCELLED -> detail(error, ErrorInfo.class) == null;
      case RESOURCE_EXHAUSTED -> requestedMillis(error) > 0;
      default -> false;
    };
  }

  /** The wait that an error asks for. */
  static long requestedMillis(StatusRuntimeException error) {
    RetryInfo retry = detail(error, RetryInfo.class);
    if (retry == null) return 0;
    return retry.getRetryDelay().getSeconds() * 1000 + retry.getRetryDelay().getNanos() / 1_000_000;
  }

  /** One of an error's details, or null. */
  static <T extends com.google.protobuf.Message> T detail(StatusRuntimeException error, Class<T> kind) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
      try {
        if (detail.is(kind)) return detail.unpack(kind);
      } catch (com.google.protobuf.InvalidProtocolBufferException malformed) {
        return null;
      }
    }
    return null;
  }

  /** Writes a result, also one that is too large for a status. */
  static void result(JobStatusServiceBlockingStub stub, JobStatus status, OutputStream out)
      throws IOException {
    if (!status.getResult().getOmitted()) {
      status.getResult().getData().writeTo(out);
      return;
    }
    var request = DownloadArtifactRequest.newBuilder().setJob(status.getJob()).setArtifactId("jobwatch:result");
    var parts = stub.downloadArtifact(request.build());
    while (parts.hasNext()) parts.next().getData().writeTo(out);
  }

  static void show(JobStatus status) {
    System.out.println((status.getState() + " " + status.getError().getMessage()).strip());
  }

  @SuppressWarnings("unchecked")
  public static void main(String[] arguments) throws Exception {
    String[] name = arguments[1].split("/", 2);
    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0])
        .usePlaintext()
        .defaultServiceConfig(new Gson().fromJson(SERVICE_CONFIG, Map.class))
        .enableRetry()
        .build();
    JobStatusServiceBlockingStub stub = JobStatusServiceGrpc.newBlockingStub(channel);
    JobRef job = JobRef.newBuilder().setBackend(name[0]).setJobId(name[1]).build();
    try {
      switch (arguments[2]) {
        case "watch" -> watch(stub, job, Client::show);
        case "result" -> result(stub, wait(stub, job), System.out);
        default -> show(wait(stub, job));
      }
    } catch (StatusRuntimeException error) {
      ErrorInfo info = detail(error, ErrorInfo.class);
      System.err.println((info == null ? "" : info.getReason()) + " " + error.getStatus());
      System.exit(1);
    }
    System.out.flush();
    channel.shutdownNow();
  }
}
