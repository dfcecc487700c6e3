/** Waits for jobs behind a jobwatch gateway, and follows them, through restarts and lost connections. */
export { JobClient, type CallOptions, type ClientOptions, type FollowOptions, type WaitOptions } from "./client.js";
export { GatewayError, NotEndedError } from "./errors.js";
export { type Job, type Update } from "./session.js";
export { JobState, JobStatusView, type JobRef, type JobStatus } from "./gen/jobwatch/v1/job_pb.js";
