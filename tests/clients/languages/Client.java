import com.google.protobuf.Any;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.ResourceInfo;
import com.google.rpc.Status;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import jobwatch.v1.*;

/**
 * A client generated from the contract, beside Google's own types of errors.
 *
 * <p>java Client ADDRESS BACKEND JOB_ID
 */
public class Client {
  static void check(boolean holds, Object what) {
    if (!holds) throw new AssertionError(what);
  }

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().build();
    JobStatusServiceGrpc.JobStatusServiceBlockingStub stub = JobStatusServiceGrpc.newBlockingStub(channel);
    JobRef job = JobRef.newBuilder().setBackend(arguments[1]).setJobId(arguments[2]).build();
    JobStatus status = stub.getJobStatus(GetJobStatusRequest.newBuilder().setJob(job).build()).getStatus();
    check(status.getState() == JobState.JOB_STATE_SUCCEEDED, status);

    JobRef none = job.toBuilder().setJobId("no-such-job").build();
    BatchGetStatusesResponse batch =
        stub.batchGetStatuses(BatchGetStatusesRequest.newBuilder().addJobs(none).build());
    check(batch.getResults(0).getError().getReason().equals("JOB_NOT_FOUND"), batch);
    check(JsonFormat.printer().print(batch).contains("JOB_NOT_FOUND"), batch);

    try {
      stub.getJobStatus(GetJobStatusRequest.newBuilder().setJob(none).build());
      throw new AssertionError("no error");
    } catch (StatusRuntimeException error) {
      Status details = StatusProto.fromThrowable(error);
      boolean found = false;
      for (Any detail : details.getDetailsList()) {
        // Debian's package has no ErrorInfo yet.
        found |= detail.is(ResourceInfo.class)
            && detail.unpack(ResourceInfo.class).getResourceType().equals("job");
      }
      check(found, details);
    }
    channel.shutdownNow();
    System.out.println("all good");
  }
}
