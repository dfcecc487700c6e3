# Waits for a job, watches it, or writes its result, through restarts of the gateway.
#
#     ruby client.rb 127.0.0.1:50051 immuta-prod/42 wait|watch|result
require "google/rpc/error_details_pb"
require "jobwatch/v1/job_status_service_services_pb"

include Jobwatch::V1

SERVICE_CONFIG = <<~JSON
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
  }
JSON

# The status with which the job ended, or the newest one after an hour.
def wait(stub, job)
  hour = Google::Protobuf::Duration.new(seconds: 3600)
  stub.get_job_status(GetJobStatusRequest.new(job: job, wait: hour)).status
end

# Yields every status, the last of which is terminal.
def watch(stub, job)
  token, failures = "", 0
  begin
    stub.watch_job(WatchJobRequest.new(job: job, resume_token: token)).each do |event|
      token, failures = event.resume_token, 0
      yield event.status if event.status
    end
  rescue GRPC::BadStatus => error
    raise unless resumes?(error)
    sleep [0.25 * 2**[failures, 5].min * rand(0.5..1.5), requested_wait(error)].max
    failures += 1
    retry
  end
end

# Whether a call goes on after this error.
def resumes?(error)
  case error
  when GRPC::Unavailable, GRPC::DeadlineExceeded then true
  when GRPC::Unknown, GRPC::Internal, GRPC::Cancelled then detail(error, Google::Rpc::ErrorInfo).nil?
  when GRPC::ResourceExhausted then requested_wait(error).positive?
  else false
  end
end

# The wait in seconds that an error asks for.
def requested_wait(error)
  delay = detail(error, Google::Rpc::RetryInfo)&.retry_delay
  delay ? delay.seconds + delay.nanos / 1e9 : 0
end

# One of an error's details, or nil.
def detail(error, kind)
  details = error.to_rpc_status&.details || []
  found = details.find { |detail| detail.type_url.end_with?("/#{kind.descriptor.name}") }
  kind.decode(found.value) if found
end

# Writes a result, also one that is too large for a status.
def result(stub, status, out)
  return out.write(status.result&.data) unless status.result&.omitted
  request = DownloadArtifactRequest.new(job: status.job, artifact_id: "jobwatch:result")
  stub.download_artifact(request).each { |part| out.write(part.data) }
end

def show(status)
  puts [status.state, status.error&.message].compact.join(" ")
  $stdout.flush
end

address, name, command = ARGV
backend, job_id = name.split("/", 2)
options = { "grpc.service_config" => SERVICE_CONFIG }
stub = JobStatusService::Stub.new(address, :this_channel_is_insecure, channel_args: options)
job = JobRef.new(backend: backend, job_id: job_id)
begin
  case command
  when "watch" then watch(stub, job) { |status| show(status) }
  when "result" then result(stub, wait(stub, job), $stdout.binmode)
  else show(wait(stub, job))
  end
rescue GRPC::BadStatus => error
  abort "#{detail(error, Google::Rpc::ErrorInfo)&.reason} #{error.message}"
end
