#!/bin/sh
# Waits for a job with grpcurl alone and prints its states as it goes through them.
#
#     examples/wait.sh 127.0.0.1:50051 immuta cefb58a0-cd71-11ec-8e29-81c20d280994
#
# Exits with 0 if the job succeeded, with 1 if it ended otherwise or can't be watched.
set -eu

server=$1
request=$(printf '{"job": {"backend": "%s", "job_id": "%s"}, "state_changes_only": true}' "$2" "$3")

# The stream ends after the terminal status.
grpcurl -plaintext -d "$request" "$server" jobwatch.v1.JobStatusService/WatchJob |
    sed -n 's/.*"state": "JOB_STATE_\(.*\)".*/\1/p' | {
        while read -r state; do echo "$state"; last=$state; done
        [ "${last-}" = SUCCEEDED ]
    }
