/** The watches of one `follow`, without I/O: what to send, what a response means, when to resume. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { status as Code } from "@grpc/grpc-js";
import { GatewayError, NotEndedError, ofElement } from "./errors.js";
import { JobRefSchema, JobStatusView, type JobRef, type JobStatus } from "./gen/jobwatch/v1/job_pb.js";
import {
  WatchJobRequestSchema,
  WatchJobsRequestSchema,
  type WatchJobRequest,
  type WatchJobsRequest,
  type WatchJobsResponse,
} from "./gen/jobwatch/v1/job_status_service_pb.js";

/** A job: "BACKEND/JOB_ID", or its parts. */
export type Job = string | MessageInitShape<typeof JobRefSchema>;

/** A call without any message for this long is dead. */
export const SILENCE_MS = 60_000;
const HEARTBEAT_MS = 20_000;

/** What happened to a job, or to all that are open. With neither of the rest, a problem has passed. */
export interface Update {
  /** The job; the first one of `jobs`. */
  job: JobRef;
  /** The jobs that it is about: one, or with a lost connection all that are open. */
  jobs: JobRef[];
  /** A new status. */
  status?: JobStatus;
  /**
   * Nothing newer is known at present: the vendor can't be polled, or the gateway can't be reached.
   * The watch goes on.
   */
  problem?: GatewayError;
  /** The watch has ended with this error. */
  error?: GatewayError;
}

export interface SessionOptions {
  view?: JobStatusView | undefined;
  pollIntervalMs?: number | undefined;
  stateChangesOnly?: boolean | undefined;
}

interface Watch {
  job: JobRef;
  request: WatchJobRequest;
  failures: number;
  hasProblem: boolean;
  status: JobStatus | undefined;
  problem: GatewayError | undefined;
  /** When to add it again, if it ended alone. */
  due: number | undefined;
}

export function jobRef(job: Job): JobRef {
  if (typeof job !== "string") return create(JobRefSchema, job);
  const slash = job.indexOf("/");
  if (slash < 1 || slash === job.length - 1) {
    throw new TypeError(`"${job}" is not a job; write "BACKEND/JOB_ID" or { backend, jobId }`);
  }
  return create(JobRefSchema, { backend: job.slice(0, slash), jobId: job.slice(slash + 1) });
}

export class Session {
  readonly #open = new Map<bigint, Watch>();
  #failures = 0;
  /** An error that ended all open watches, so that another call is needed. */
  lostWith: GatewayError | undefined;

  constructor(jobs: Iterable<Job>, options: SessionOptions) {
    for (const name of jobs) {
      const job = jobRef(name);
      const request = create(WatchJobRequestSchema, {
        job,
        view: options.view ?? JobStatusView.UNSPECIFIED,
        heartbeatInterval: durationFromMs(HEARTBEAT_MS),
        stateChangesOnly: options.stateChangesOnly ?? false,
      });
      if (options.pollIntervalMs !== undefined) request.pollInterval = durationFromMs(options.pollIntervalMs);
      this.#open.set(BigInt(this.#open.size), {
        job,
        request,
        failures: 0,
        hasProblem: false,
        status: undefined,
        problem: undefined,
        due: undefined,
      });
    }
  }

  get done(): boolean {
    return this.#open.size === 0;
  }

  /** The first requests of a call. */
  begin(): WatchJobsRequest[] {
    this.lostWith = undefined;
    for (const watch of this.#open.values()) watch.due = undefined;
    return [...this.#open].map(add);
  }

  /** When a watch is to be added again. */
  dueAt(): number {
    return Math.min(...[...this.#open.values()].map((watch) => watch.due ?? Infinity));
  }

  /** Watches to add again. */
  due(now: number): WatchJobsRequest[] {
    const found = [...this.#open].filter(([, watch]) => watch.due !== undefined && watch.due <= now);
    for (const [, watch] of found) watch.due = undefined;
    return found.map(add);
  }

  /** What a response means. */
  *receive(response: WatchJobsResponse, now: number): Generator<Update> {
    const watch = this.#open.get(response.watchId);
    if (!watch) return;
    const { job } = watch;
    const jobs = [job];
    const { outcome } = response;
    if (outcome.case === "event") {
      const { event, resumeToken } = outcome.value;
      watch.failures = this.#failures = 0;
      watch.request.resumeToken = resumeToken || watch.request.resumeToken;
      const hadProblem = watch.hasProblem;
      watch.hasProblem = event.case === "interruption";
      watch.problem = undefined;
      if (event.case === "status") {
        watch.status = event.value;
        if (event.value.terminal) this.#open.delete(response.watchId);
        yield { job, jobs, status: event.value };
      } else if (event.case === "interruption") {
        const unknown = new GatewayError(Code.UNAVAILABLE, "the vendor can't be polled");
        watch.problem = event.value.cause ? ofElement(event.value.cause) : unknown;
        yield { job, jobs, problem: watch.problem };
      } else if (hadProblem) {
        yield { job, jobs };
      }
    } else if (outcome.case === "end") {
      let error = ofElement(outcome.value);
      if (error.code === Code.OK) error = new GatewayError(Code.UNAVAILABLE, "the watch ended before the job did");
      if (!error.resumable) {
        this.#open.delete(response.watchId);
        yield { job, jobs, error };
        return;
      }
      watch.due = now + error.waitBeforeNextMs(watch.failures++);
      watch.hasProblem = true;
      watch.problem = error;
      if ([...this.#open.values()].every((other) => other.due !== undefined)) {
        // A gateway that shuts down ends every watch: another call reaches another one.
        this.lostWith = error;
      } else {
        yield { job, jobs, problem: error };
      }
    }
  }

  /** The call has failed: what to report, once for all jobs, and how long to wait before another one. */
  lost(error: GatewayError): [Update[], number] {
    if (!error.resumable) return [this.#end(error), 0];
    const waitMs = error.waitBeforeNextMs(this.#failures++);
    for (const watch of this.#open.values()) {
      watch.hasProblem = true;
      watch.problem = error;
    }
    const [job, ...others] = [...this.#open.values()].map((watch) => watch.job);
    return [job ? [{ job, jobs: [job, ...others], problem: error }] : [], waitMs];
  }

  timedOut(timeoutMs: number): Update[] {
    const updates = [...this.#open.values()].map(({ job, status, problem }): Update => {
      return { job, jobs: [job], error: new NotEndedError(timeoutMs, status, problem) };
    });
    this.#open.clear();
    return updates;
  }

  #end(error: GatewayError): Update[] {
    const updates = [...this.#open.values()].map(({ job }): Update => ({ job, jobs: [job], error }));
    this.#open.clear();
    return updates;
  }
}

function add([watchId, watch]: [bigint, Watch]): WatchJobsRequest {
  const request = { case: "add" as const, value: { watchId, watch: watch.request } };
  return create(WatchJobsRequestSchema, { request });
}
