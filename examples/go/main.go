// Waits for a job, watches it, or writes its result, through restarts of the gateway.
//
//	protoc -I proto --go_out=. --go-grpc_out=. jobwatch/v1/job.proto jobwatch/v1/job_status_service.proto
//	client 127.0.0.1:50051 immuta-prod/42 wait|watch|result
//
// grpc-go before 1.40 retries only with GRPC_GO_RETRY=on in the environment.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwatchv1 "jobwatch/v1"
)

const serviceConfig = `{
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
}`

// wait returns the status with which the job ended, or the newest one after an hour.
func wait(ctx context.Context, stub jobwatchv1.JobStatusServiceClient, job *jobwatchv1.JobRef) (*jobwatchv1.JobStatus, error) {
	request := &jobwatchv1.GetJobStatusRequest{Job: job, Wait: durationpb.New(time.Hour)}
	response, err := stub.GetJobStatus(ctx, request)
	return response.GetStatus(), err
}

// watch calls each with every status, the last of which is terminal.
func watch(ctx context.Context, stub jobwatchv1.JobStatusServiceClient, job *jobwatchv1.JobRef, each func(*jobwatchv1.JobStatus)) error {
	request := &jobwatchv1.WatchJobRequest{Job: job}
	for failures := 0; ; failures++ {
		stream, err := stub.WatchJob(ctx, request)
		for err == nil {
			var event *jobwatchv1.WatchJobResponse
			if event, err = stream.Recv(); err == nil {
				request.ResumeToken, failures = event.ResumeToken, 0
				if status := event.GetStatus(); status != nil {
					each(status)
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		delay, ok := resumes(err, failures)
		if !ok {
			return err
		}
		time.Sleep(delay)
	}
}

// resumes returns whether a call goes on after this error, and when.
func resumes(err error, failures int) (time.Duration, bool) {
	reason, requested := details(err)
	code := status.Code(err)
	ofConnection := reason == "" && (code == codes.Unknown || code == codes.Internal || code == codes.Canceled)
	overloaded := code == codes.ResourceExhausted && requested > 0
	ok := ofConnection || overloaded || code == codes.Unavailable || code == codes.DeadlineExceeded
	if failures > 5 {
		failures = 5
	}
	delay := time.Duration((0.5 + rand.Float64()) * float64(250*time.Millisecond<<failures))
	if delay < requested {
		delay = requested
	}
	return delay, ok
}

// details returns the reason of an error, and the wait that it asks for.
func details(err error) (reason string, retry time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Reason
		case *errdetails.RetryInfo:
			retry = detail.RetryDelay.AsDuration()
		}
	}
	return reason, retry
}

// result writes a result, also one that is too large for a status.
func result(ctx context.Context, stub jobwatchv1.JobStatusServiceClient, status *jobwatchv1.JobStatus, out io.Writer) error {
	if !status.GetResult().GetOmitted() {
		_, err := out.Write(status.GetResult().GetData())
		return err
	}
	request := &jobwatchv1.DownloadArtifactRequest{Job: status.Job, ArtifactId: "jobwatch:result"}
	stream, err := stub.DownloadArtifact(ctx, request)
	for err == nil {
		var part *jobwatchv1.DownloadArtifactResponse
		if part, err = stream.Recv(); err == nil {
			_, err = out.Write(part.Data)
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func main() {
	address, name, command := os.Args[1], strings.SplitN(os.Args[2], "/", 2), os.Args[3]
	job := &jobwatchv1.JobRef{Backend: name[0], JobId: name[1]}
	conn, err := grpc.Dial(address, grpc.WithInsecure(), grpc.WithDefaultServiceConfig(serviceConfig))
	exitOn(err)
	stub, ctx := jobwatchv1.NewJobStatusServiceClient(conn), context.Background()
	show := func(status *jobwatchv1.JobStatus) {
		fmt.Println(strings.TrimSpace(status.State.String() + " " + status.GetError().GetMessage()))
	}
	if command == "watch" {
		exitOn(watch(ctx, stub, job, show))
		return
	}
	status, err := wait(ctx, stub, job)
	exitOn(err)
	if command == "result" {
		exitOn(result(ctx, stub, status, os.Stdout))
		return
	}
	show(status)
}

func exitOn(err error) {
	if err != nil {
		reason, _ := details(err)
		fmt.Fprintln(os.Stderr, reason, err)
		os.Exit(1)
	}
}
