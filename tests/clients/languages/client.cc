// A client generated from the contract, beside Google's own types of errors.
//
//     client ADDRESS BACKEND JOB_ID
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <iostream>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "jobwatch/v1/job_status_service.grpc.pb.h"

namespace pb = jobwatch::v1;

static void check(bool holds, const std::string& what) {
  if (holds) return;
  std::cerr << "failed: " << what << std::endl;
  std::exit(1);
}

int main(int, char** arguments) {
  auto channel = grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials());
  auto stub = pb::JobStatusService::NewStub(channel);
  pb::GetJobStatusRequest get;
  get.mutable_job()->set_backend(arguments[2]);
  get.mutable_job()->set_job_id(arguments[3]);
  pb::GetJobStatusResponse got;
  grpc::ClientContext first;
  check(stub->GetJobStatus(&first, get, &got).ok(), "get");
  check(got.status().state() == pb::JOB_STATE_SUCCEEDED, "state");

  get.mutable_job()->set_job_id("no-such-job");
  pb::BatchGetStatusesRequest batch;
  *batch.add_jobs() = get.job();
  pb::BatchGetStatusesResponse results;
  grpc::ClientContext second;
  check(stub->BatchGetStatuses(&second, batch, &results).ok(), "batch");
  check(results.results(0).error().reason() == "JOB_NOT_FOUND", "element");
  std::string printed;
  check(google::protobuf::util::MessageToJsonString(results, &printed).ok(), "printed");

  grpc::ClientContext third;
  grpc::Status failed = stub->GetJobStatus(&third, get, &got);
  google::rpc::Status status;
  check(status.ParseFromString(failed.error_details()), "details");
  google::rpc::ErrorInfo info;
  check(status.details(0).UnpackTo(&info) && info.reason() == "JOB_NOT_FOUND", "reason");
  std::cout << "all good" << std::endl;
}
