/** The gateway's errors, and when to call again. */
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { AnySchema, DurationSchema, type Duration } from "@bufbuild/protobuf/wkt";
import { status as Code, type ServiceError } from "@grpc/grpc-js";
import { JobState, type CallError, type JobStatus } from "./gen/jobwatch/v1/job_pb.js";

const FIRST_MS = 250;
const LONGEST_MS = 10_000;
/**
 * Doublings of the first wait within the first five tries: a gateway that restarts is back soon, so none
 * of them waits for more than two seconds.
 */
const FIRST_DOUBLINGS = 3;

/** What an error says besides its code and message. */
interface Details {
  reason: string;
  metadata: Record<string, string>;
  retryDelayMs: number | undefined;
}

/** An error of the gateway: of a call, or of one job of a call. */
export class GatewayError extends Error {
  override readonly name: string = "GatewayError";
  /** The gRPC code. */
  readonly code: Code;
  /** The reason of the ErrorInfo, such as "JOB_NOT_FOUND". Empty if a proxy or the connection failed. */
  readonly reason: string;
  /** The metadata of the ErrorInfo, with `field` and `limit` where the error names one. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The wait that the gateway asks for. */
  readonly retryDelayMs: number | undefined;

  constructor(code: Code, message: string, details: Partial<Details> = {}) {
    super(`${Code[code]}: ${message}${details.reason ? ` (${details.reason})` : ""}`);
    this.code = code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.retryDelayMs = details.retryDelayMs;
  }

  /** Whether a wait or a watch goes on in another call. */
  get resumable(): boolean {
    switch (this.code) {
      case Code.UNAVAILABLE:
      case Code.DEADLINE_EXCEEDED:
        return true;
      case Code.UNKNOWN:
      case Code.INTERNAL:
      case Code.CANCELLED:
        return this.reason === "";
      case Code.RESOURCE_EXHAUSTED:
        return this.retryDelayMs !== undefined;
      default:
        return false;
    }
  }

  /**
   * The wait after so many failures in a row: what the gateway asks for, and at least a growing
   * back-off with jitter, of at most two seconds for the first five.
   */
  waitBeforeNextMs(failures: number): number {
    const doublings = Math.max(Math.min(failures, FIRST_DOUBLINGS), failures - 1);
    const most = Math.min(FIRST_MS * 2 ** doublings, LONGEST_MS);
    return Math.max(FIRST_MS / 2 + (most - FIRST_MS / 2) * Math.random(), this.retryDelayMs ?? 0);
  }
}

/** The timeout has passed before the job ended. */
export class NotEndedError extends GatewayError {
  override readonly name = "NotEndedError";
  /** The newest status, if any was received. */
  readonly status: JobStatus | undefined;
  /** Why nothing newer is known: the vendor could not be polled, or the gateway not reached. */
  readonly problem: GatewayError | undefined;

  constructor(timeoutMs: number, status?: JobStatus, problem?: GatewayError) {
    const before = problem ? `; before that: ${problem.message}` : "";
    const words = status ? `it was ${JobState[status.state]}` : "no status was received";
    super(Code.DEADLINE_EXCEEDED, `not ended after ${timeoutMs / 1000} s; ${words}${before}`);
    this.status = status;
    this.problem = problem;
  }
}

function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** The error of one job. */
export function ofElement(error: CallError): GatewayError {
  const retryDelayMs = error.retryDelay && milliseconds(error.retryDelay);
  return new GatewayError(error.code, error.message, { ...error, retryDelayMs });
}

/** The error of a call, with its details decoded. */
export function ofCall(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error;
  const { code, details, metadata } = error as ServiceError;
  if (typeof code !== "number") throw error;
  const [bytes] = metadata?.get("grpc-status-details-bin") ?? [];
  return new GatewayError(code, details, bytes instanceof Uint8Array ? decode(bytes) : {});
}

/** The fields of a message that are messages or texts. */
function* fields(bytes: Uint8Array): Generator<[number, Uint8Array]> {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.LengthDelimited) yield [number, reader.bytes()];
    else reader.skip(type, number);
  }
}

function field(bytes: Uint8Array | undefined, wanted: number): Uint8Array | undefined {
  for (const [number, value] of fields(bytes ?? new Uint8Array())) if (number === wanted) return value;
  return undefined;
}

const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);

/** Reads google.rpc.Status, whose messages are not generated: nothing else may declare them. */
function decode(bytes: Uint8Array): Details {
  const found: Details = { reason: "", metadata: {}, retryDelayMs: undefined };
  for (const [number, value] of fields(bytes)) {
    if (number !== 3) continue;
    const detail = fromBinary(AnySchema, value);
    switch (detail.typeUrl.slice(detail.typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo":
        found.reason = text(field(detail.value, 1));
        for (const [number, entry] of fields(detail.value)) {
          if (number === 3) found.metadata[text(field(entry, 1))] = text(field(entry, 2));
        }
        break;
      case "google.rpc.RetryInfo":
        found.retryDelayMs = milliseconds(fromBinary(DurationSchema, field(detail.value, 1) ?? new Uint8Array()));
        break;
      case "google.rpc.BadRequest":
        found.metadata.field = text(field(field(detail.value, 1), 1));
        break;
      case "google.rpc.QuotaFailure":
        found.metadata.limit = text(field(field(detail.value, 1), 1));
        break;
    }
  }
  return found;
}
