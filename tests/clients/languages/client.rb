# A client generated from the contract, beside Google's own types of errors.
#
#     ruby client.rb ADDRESS BACKEND JOB_ID
require "google/rpc/status_pb"
require "google/rpc/error_details_pb"
require "jobwatch/v1/job_status_service_services_pb"

include Jobwatch::V1

address, backend, job_id = ARGV
stub = JobStatusService::Stub.new(address, :this_channel_is_insecure)
job = JobRef.new(backend: backend, job_id: job_id)
status = stub.get_job_status(GetJobStatusRequest.new(job: job)).status
raise "state #{status.state}" unless status.state == :JOB_STATE_SUCCEEDED

none = JobRef.new(backend: backend, job_id: "no-such-job")
result = stub.batch_get_statuses(BatchGetStatusesRequest.new(jobs: [none])).results.first
raise "element #{result.error}" unless result.error.reason == "JOB_NOT_FOUND"
raise "printed" unless result.to_json.include?("JOB_NOT_FOUND")

begin
  stub.get_job_status(GetJobStatusRequest.new(job: none))
  raise "no error"
rescue GRPC::NotFound => error
  details = error.to_rpc_status.details
  bytes = details.find { |detail| detail.type_url.end_with?("/google.rpc.ErrorInfo") }.value
  info = Google::Rpc::ErrorInfo.decode(bytes)
  raise "reason #{info.reason}" unless info.reason == "JOB_NOT_FOUND"
end
puts "all good"
