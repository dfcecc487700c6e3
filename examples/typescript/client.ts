/**
 * Waits for a job, watches it, or writes its result, through restarts of the gateway.
 *
 *     npm install jobwatch-client-0.2.0.tgz
 *     node client.js 127.0.0.1:50051 immuta-prod/42 wait|watch|result
 */
import { GatewayError, JobClient, JobState, type JobStatus } from "jobwatch-client";

const [address = "", job = "", command = "wait"] = process.argv.slice(2);
const jobs = new JobClient(address);

function show(status: JobStatus): void {
  console.log(`${JobState[status.state]} ${status.error?.message ?? ""}`.trim());
}

try {
  if (command === "wait") {
    show(await jobs.wait(job, { timeoutMs: 3_600_000 }));
  } else if (command === "result") {
    process.stdout.write(await jobs.result(await jobs.wait(job)));
  } else {
    for await (const update of jobs.follow(job)) {
      if (update.error) throw update.error;
      if (update.status) show(update.status);
    }
  }
} catch (error) {
  if (!(error instanceof GatewayError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
} finally {
  jobs.close();
}
