/** The generated messages of the contract. */
export * from "./gen/jobwatch/v1/job_pb.js";
export * from "./gen/jobwatch/v1/job_status_service_pb.js";
