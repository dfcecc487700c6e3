// Waits for a job, watches it, or writes its result, through restarts of the gateway.
//
//     client 127.0.0.1:50051 immuta-prod/42 wait|watch|result
#include <google/protobuf/util/time_util.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <iostream>
#include <random>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "jobwatch/v1/job_status_service.grpc.pb.h"

namespace pb = jobwatch::v1;
using Stub = pb::JobStatusService::Stub;
using Each = std::function<void(const pb::JobStatus&)>;
using std::chrono::milliseconds;

const char* service_config = R"({
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
})";

// The status with which the job ended, or the newest one after an hour.
grpc::Status wait(Stub& stub, const pb::JobRef& job, pb::GetJobStatusResponse* response) {
  grpc::ClientContext context;
  pb::GetJobStatusRequest request;
  *request.mutable_job() = job;
  request.mutable_wait()->set_seconds(3600);
  return stub.GetJobStatus(&context, request, response);
}

// The reason of an error, and the wait that it asks for.
struct Details {
  std::string reason;
  milliseconds retry{0};
};

Details details(const grpc::Status& error) {
  Details found;
  google::rpc::Status status;
  status.ParseFromString(error.error_details());
  for (const auto& detail : status.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&info)) found.reason = info.reason();
    if (detail.UnpackTo(&retry)) {
      found.retry = milliseconds(google::protobuf::util::TimeUtil::DurationToMilliseconds(retry.retry_delay()));
    }
  }
  return found;
}

// Whether a call goes on after this error.
bool resumes(const grpc::Status& error, const Details& details) {
  switch (error.error_code()) {
    case grpc::UNAVAILABLE:
    case grpc::DEADLINE_EXCEEDED:
      return true;
    case grpc::UNKNOWN:
    case grpc::INTERNAL:
    case grpc::CANCELLED:
      return details.reason.empty();
    case grpc::RESOURCE_EXHAUSTED:
      return details.retry.count() > 0;
    default:
      return false;
  }
}

// Calls `each` with every status, the last of which is terminal.
grpc::Status watch(Stub& stub, const pb::JobRef& job, const Each& each) {
  std::minstd_rand random{std::random_device{}()};
  std::uniform_real_distribution<> jitter(0.5, 1.5);
  pb::WatchJobRequest request;
  *request.mutable_job() = job;
  for (int failures = 0;; failures++) {
    grpc::ClientContext context;
    auto stream = stub.WatchJob(&context, request);
    pb::WatchJobResponse event;
    while (stream->Read(&event)) {
      request.set_resume_token(event.resume_token());
      failures = 0;
      if (event.has_status()) each(event.status());
    }
    grpc::Status end = stream->Finish();
    Details why = details(end);
    if (end.ok() || !resumes(end, why)) return end;
    milliseconds backoff(static_cast<int>(jitter(random) * (250 << std::min(failures, 5))));
    std::this_thread::sleep_for(std::max(backoff, why.retry));
  }
}

// Writes a result, also one that is too large for a status.
grpc::Status result(Stub& stub, const pb::JobStatus& status, std::ostream& out) {
  if (!status.result().omitted()) {
    out << status.result().data();
    return grpc::Status::OK;
  }
  grpc::ClientContext context;
  pb::DownloadArtifactRequest request;
  *request.mutable_job() = status.job();
  request.set_artifact_id("jobwatch:result");
  auto stream = stub.DownloadArtifact(&context, request);
  pb::DownloadArtifactResponse part;
  while (stream->Read(&part)) out << part.data();
  return stream->Finish();
}

void show(const pb::JobStatus& status) {
  std::cout << pb::JobState_Name(status.state());
  if (status.has_error()) std::cout << " " << status.error().message();
  std::cout << std::endl;
}

int main(int, char** arguments) {
  grpc::ChannelArguments options;
  options.SetServiceConfigJSON(service_config);
  auto channel = grpc::CreateCustomChannel(arguments[1], grpc::InsecureChannelCredentials(), options);
  auto stub = pb::JobStatusService::NewStub(channel);
  std::string name = arguments[2], command = arguments[3];
  pb::JobRef job;
  job.set_backend(name.substr(0, name.find('/')));
  job.set_job_id(name.substr(name.find('/') + 1));

  grpc::Status end;
  if (command == "watch") {
    end = watch(*stub, job, show);
  } else {
    pb::GetJobStatusResponse response;
    end = wait(*stub, job, &response);
    if (end.ok() && command == "result") {
      end = result(*stub, response.status(), std::cout);
    } else if (end.ok()) {
      show(response.status());
    }
  }
  if (end.ok()) return 0;
  std::cerr << details(end).reason << " " << end.error_message() << std::endl;
  return 1;
}
