/** The calls. */
import { create, fromBinary, toBinary, type DescMessage, type DescMethod, type MessageShape } from "@bufbuild/protobuf";
import {
  Client,
  Metadata,
  credentials,
  status as Code,
  type ChannelCredentials,
  type ChannelOptions,
} from "@grpc/grpc-js";
import { GatewayError, ofCall } from "./errors.js";
import type { JobStatus, JobStatusView } from "./gen/jobwatch/v1/job_pb.js";
import { DownloadArtifactRequestSchema, JobStatusService } from "./gen/jobwatch/v1/job_status_service_pb.js";
import { SILENCE_MS, Session, jobRef, type Job, type Update } from "./session.js";

/** Interruptions of a download in a row without progress. */
const MOST_FAILURES = 5;

/**
 * Pings find a dead connection, calls are spread over all addresses of the target, and the channel
 * reconnects within two seconds: how often is up to the client.
 */
const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 250,
  "grpc.max_reconnect_backoff_ms": 2_000,
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
};

export interface ClientOptions {
  /** Plaintext if unset. `credentials.createSsl(ca)` of @grpc/grpc-js for TLS. */
  credentials?: ChannelCredentials;
  /** Sent with each call, such as `{ authorization: "Bearer TOKEN" }`. */
  metadata?: Record<string, string>;
  /** Besides the package's own. */
  channelOptions?: ChannelOptions;
}

export interface CallOptions {
  /** Longest time in all. */
  timeoutMs?: number;
  /** Aborts the calls. */
  signal?: AbortSignal;
  /** How much of each status to return. */
  view?: JobStatusView;
  /** Longest poll interval that is acceptable, within the backend's bounds. */
  pollIntervalMs?: number;
}

export interface WaitOptions extends CallOptions {
  /**
   * Called with each problem that does not end the wait: the gateway can't be reached, or can't poll the
   * vendor. By default console.warn.
   */
  onProblem?: (problem: GatewayError) => void;
}

export interface FollowOptions extends CallOptions {
  /** No update for a status in which only the progress has changed. */
  stateChangesOnly?: boolean;
}

/** Waits for jobs, and follows them, over a channel of its own. */
export class JobClient {
  readonly #channel: Client;
  readonly #metadata: Metadata;

  /** `target`: such as "gateway:50051" or "dns:///gateway.example.com:50051". */
  constructor(target: string, options: ClientOptions = {}) {
    const channelOptions = { ...CHANNEL_OPTIONS, ...options.channelOptions };
    this.#channel = new Client(target, options.credentials ?? credentials.createInsecure(), channelOptions);
    this.#metadata = Metadata.fromHttp2Headers(options.metadata ?? {});
  }

  close(): void {
    this.#channel.close();
  }

  /**
   * Resolves to the terminal status of a job. Rejects with a NotEndedError after `timeoutMs`, and with
   * a GatewayError for a final error. That includes what keeps the gateway from polling the vendor,
   * unless it may pass by itself.
   */
  async wait(job: Job, options: WaitOptions = {}): Promise<JobStatus> {
    const warn = (problem: GatewayError): void => console.warn(`jobwatch: still waiting: ${problem.message}`);
    const onProblem = options.onProblem ?? warn;
    for await (const update of this.follow([job], { ...options, stateChangesOnly: true })) {
      if (update.error) throw update.error;
      // The gateway would go on until somebody corrects this, such as its credentials.
      if (update.problem && !update.problem.resumable) throw update.problem;
      if (update.status?.terminal) return update.status;
      if (update.problem) onProblem(update.problem);
    }
    throw new GatewayError(Code.INTERNAL, "the watch ended without a status");
  }

  /** Yields what happens to the jobs, until all have ended. Leaving the loop ends the call. */
  async *follow(jobs: Job | Iterable<Job>, options: FollowOptions = {}): AsyncGenerator<Update, void> {
    const list = typeof jobs === "string" || !(Symbol.iterator in jobs) ? [jobs] : jobs;
    const session = new Session(list, options);
    const { timeoutMs = Infinity, signal } = options;
    const end = performance.now() + timeoutMs;
    while (!session.done) {
      const error = yield* this.#call(session, end, signal);
      let waitMs = 0;
      if (error) {
        const [updates, wait] = session.lost(error);
        waitMs = wait;
        yield* updates;
      }
      if (session.done) return;
      const now = performance.now();
      if (waitMs > 0) await within(undefined, Math.min(waitMs, Math.max(0, end - now)), signal);
      if (now + waitMs >= end) yield* session.timedOut(timeoutMs);
    }
  }

  /** One call. Returns the error that ended it, if it was not the end of the time or of all jobs. */
  async *#call(
    session: Session,
    end: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Update, GatewayError | undefined> {
    signal?.throwIfAborted();
    const [path, write, read] = codec(JobStatusService.method.watchJobs);
    const call = this.#channel.makeBidiStreamRequest(path, write, read, this.#metadata);
    // An error that comes after the last read has no other listener.
    call.on("error", () => {});
    for (const request of session.begin()) call.write(request);
    const responses = call[Symbol.asyncIterator]();
    let reading: ReturnType<typeof responses.next> | undefined;
    let deadAt = performance.now() + SILENCE_MS;
    try {
      while (!session.done) {
        const now = performance.now();
        if (now >= end) return undefined;
        if (now >= deadAt) return new GatewayError(Code.UNAVAILABLE, "the gateway sent nothing for a minute");
        for (const request of session.due(now)) call.write(request);
        reading ??= responses.next();
        const next = await within(reading, Math.min(end, deadAt, session.dueAt()) - now, signal);
        if (!next) continue;
        reading = undefined;
        if (next.done) return new GatewayError(Code.UNAVAILABLE, "the call ended before the jobs did");
        deadAt = performance.now() + SILENCE_MS;
        yield* session.receive(next.value, performance.now());
        if (session.lostWith) return session.lostWith;
      }
      return undefined;
    } catch (error) {
      signal?.throwIfAborted();
      return ofCall(error);
    } finally {
      reading?.catch(() => {});
      call.cancel();
    }
  }

  /**
   * Yields the bytes of a file, of the result, or of "jobwatch:vendor_payload". Continues where it was
   * interrupted.
   */
  async *download(job: Job, artifactId = "jobwatch:result"): AsyncGenerator<Uint8Array, void> {
    const request = create(DownloadArtifactRequestSchema, { job: jobRef(job), artifactId });
    const [path, write, read] = codec(JobStatusService.method.downloadArtifact);
    for (let failures = 0; ; failures++) {
      const call = this.#channel.makeServerStreamRequest(path, write, read, request, this.#metadata);
      call.on("error", () => {});
      let failed: GatewayError;
      try {
        for await (const response of call as AsyncIterable<MessageShape<typeof JobStatusService.method.downloadArtifact.output>>) {
          request.ifVersion ||= response.info?.version ?? "";
          if (response.data.length > 0) {
            request.offset += BigInt(response.data.length);
            failures = 0;
            yield response.data;
          }
        }
        return;
      } catch (error) {
        failed = ofCall(error);
      } finally {
        call.cancel();
      }
      if (!failed.resumable || failures === MOST_FAILURES) throw failed;
      await within(undefined, failed.waitBeforeNextMs(failures), undefined);
    }
  }

  /** The result of a job, downloaded if it is too large for a status. */
  async result(status: JobStatus): Promise<Uint8Array> {
    if (!status.result?.omitted) return status.result?.data ?? new Uint8Array();
    const parts: Uint8Array[] = [];
    for await (const part of this.download(status.job ?? {})) parts.push(part);
    return Buffer.concat(parts);
  }
}

type Codec<M extends DescMethod> = [
  path: string,
  write: (message: MessageShape<M["input"]>) => Buffer,
  read: (bytes: Buffer) => MessageShape<M["output"]>,
];

/** Path and serialization of a method. */
function codec<M extends DescMethod & { input: DescMessage; output: DescMessage }>(method: M): Codec<M> {
  return [
    `/${method.parent.typeName}/${method.name}`,
    (message) => Buffer.from(toBinary(method.input, message)),
    (bytes) => fromBinary(method.output, bytes) as MessageShape<M["output"]>,
  ];
}

/** The promise's value, or undefined after this time. Rejects if the signal is aborted. */
async function within<T>(
  promise: Promise<T> | undefined,
  ms: number,
  signal: AbortSignal | undefined,
): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort = (): void => {};
  try {
    return await new Promise<T | undefined>((resolve, reject) => {
      promise?.then(resolve, reject);
      // Longer ones would fire at once.
      timer = setTimeout(() => resolve(undefined), Math.min(Math.max(ms, 0), 2 ** 31 - 1));
      onAbort = () => reject(signal?.reason);
      if (signal?.aborted) onAbort();
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
