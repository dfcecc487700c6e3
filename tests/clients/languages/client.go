// A client generated from the contract, beside Google's own types of errors.
//
//	client ADDRESS BACKEND JOB_ID
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	jobwatchv1 "jobwatch/v1"
)

func check(holds bool, what ...interface{}) {
	if !holds {
		log.Fatal(what...)
	}
}

func main() {
	address, backend, jobID := os.Args[1], os.Args[2], os.Args[3]
	conn, err := grpc.Dial(address, grpc.WithInsecure())
	check(err == nil, err)
	stub, ctx := jobwatchv1.NewJobStatusServiceClient(conn), context.Background()
	job := &jobwatchv1.JobRef{Backend: backend, JobId: jobID}
	got, err := stub.GetJobStatus(ctx, &jobwatchv1.GetJobStatusRequest{Job: job})
	check(err == nil && got.Status.State == jobwatchv1.JobState_JOB_STATE_SUCCEEDED, got, err)

	none := &jobwatchv1.JobRef{Backend: backend, JobId: "no-such-job"}
	batch, err := stub.BatchGetStatuses(ctx, &jobwatchv1.BatchGetStatusesRequest{Jobs: []*jobwatchv1.JobRef{none}})
	check(err == nil && batch.Results[0].GetError().Reason == "JOB_NOT_FOUND", batch, err)
	_, err = protojson.Marshal(batch)
	check(err == nil, err)

	_, err = stub.GetJobStatus(ctx, &jobwatchv1.GetJobStatusRequest{Job: none})
	reason := ""
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.Reason
		}
	}
	check(reason == "JOB_NOT_FOUND", err)
	fmt.Println("all good")
}
