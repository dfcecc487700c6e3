/**
 * Checks the package of clients/typescript against a gateway.
 *
 *     node helpers.js GATEWAY SIMULATOR
 *
 * SIMULATOR is the URL of the gateway's simulated Immuta, the backend "immuta". The backend "down" has
 * no listener, and "locked" has the wrong credentials.
 */
import assert from "node:assert";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { status as Code } from "@grpc/grpc-js";
import { GatewayError, JobClient, JobState, NotEndedError, type Update } from "jobwatch-client";

const [address = "", simulator = ""] = process.argv.slice(2);
const jobs = new JobClient(address);

let failures = 0;
function check(title: string, got: unknown, wanted: unknown): void {
  try {
    assert.deepStrictEqual(got, wanted);
    console.log(`ok   ${title}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL ${title}\n${(error as Error).message}`);
  }
}

async function admin(path: string, body?: unknown): Promise<string> {
  const json = { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`${simulator}/_simulator/${path}`, { method: "POST", ...(body === undefined ? {} : json) });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return response.text();
}

async function start(plan: unknown): Promise<string> {
  return `immuta/${JSON.parse(await admin("jobs", plan)).id}`;
}

async function failure<T extends Error>(promise: Promise<unknown>): Promise<T> {
  return promise.then(
    () => assert.fail("it did not fail"),
    (error) => error as T,
  );
}

const name = ({ job }: Update): string => `${job.backend}/${job.jobId}`;
const outcome = ({ status, error }: Update): string | undefined =>
  error ? error.reason || error.name : status && JobState[status.state];

const resumes = (code: Code, details: object = {}): boolean => new GatewayError(code, "no", details).resumable;
check("it resumes after UNAVAILABLE", resumes(Code.UNAVAILABLE, { reason: "R" }), true);
check("it resumes after INTERNAL of a proxy", resumes(Code.INTERNAL), true);
check("it does not resume after INTERNAL of the gateway", resumes(Code.INTERNAL, { reason: "R" }), false);
check("it does not resume after RESOURCE_EXHAUSTED", resumes(Code.RESOURCE_EXHAUSTED), false);
check("it resumes after overload", resumes(Code.RESOURCE_EXHAUSTED, { reason: "R", retryDelayMs: 1500 }), true);
check("it does not resume after NOT_FOUND", resumes(Code.NOT_FOUND), false);
const asked = new GatewayError(Code.UNAVAILABLE, "no", { retryDelayMs: 60_000 });
check("a requested wait is a minimum", asked.waitBeforeNextMs(0), 60_000);
const unavailable = new GatewayError(Code.UNAVAILABLE, "no");
check("a back-off has a bound", unavailable.waitBeforeNextMs(1e6) <= 10_000, true);
const longest = (failures: number): number =>
  Math.max(...Array.from({ length: 200 }, () => unavailable.waitBeforeNextMs(failures)));
check("the first five tries come soon", Math.max(...[0, 1, 2, 3, 4].map(longest)) <= 2000, true);
check("later ones come more rarely", longest(9) > 4000, true);

const free = createServer().listen(0, "127.0.0.1");
await once(free, "listening");
const { port } = free.address() as AddressInfo;
await new Promise((resolve) => free.close(resolve));
const nobody = new JobClient(`127.0.0.1:${port}`);
const problems: GatewayError[] = [];
const onProblem = (problem: GatewayError): void => void problems.push(problem);
const unreached = await failure<NotEndedError>(nobody.wait("immuta/1", { timeoutMs: 3000, onProblem }));
check("a wait without a gateway ends at its timeout", unreached.name, "NotEndedError");
check("it reports each failure", problems.length > 1 && problems.every(({ code }) => code === Code.UNAVAILABLE), true);
const lost: string[][] = [];
for await (const { problem, jobs } of nobody.follow(["immuta/1", "immuta/2", "immuta/3"], { timeoutMs: 2000 })) {
  if (problem) lost.push(jobs.map(({ jobId }) => jobId));
}
check("a lost connection is one update with all jobs", lost[0], ["1", "2", "3"]);
check("of each failure", lost.every((ids) => ids.length === 3), true);
nobody.close();

const done = await start({});
const running = await start({ held: "active" });
const failed = await start({ end: { failure: { message: "no such column" } } });
check("a wait ends with the terminal status", (await jobs.wait(done, { timeoutMs: 60_000 })).terminal, true);
const [backend = "", jobId = ""] = failed.split("/");
check("a failed job is a status", (await jobs.wait({ backend, jobId })).error?.message, "no such column");

const late = await failure<NotEndedError>(jobs.wait(running, { timeoutMs: 1000 }));
check("a wait that is too short fails", late.name, "NotEndedError");
check("it has the newest status", late.status?.state, JobState.RUNNING);
const outage = await failure<NotEndedError>(jobs.wait("down/1", { timeoutMs: 2000 }));
check("an outage of the vendor is shown", outage.problem?.reason, "BACKEND_UNAVAILABLE");
check("it is in the message", outage.message.includes("before that: UNAVAILABLE"), true);
const locked = await failure<GatewayError>(jobs.wait("locked/1"));
check("rejected credentials end a wait", locked.reason, "BACKEND_CREDENTIALS_REJECTED");
const missing = await failure<GatewayError>(jobs.wait("immuta/no-such-job"));
check("an unknown job ends a wait", [missing.code, missing.reason], [Code.NOT_FOUND, "JOB_NOT_FOUND"]);
const nowhere = await failure<GatewayError>(jobs.wait("nowhere/1"));
check("an error has its metadata", nowhere.metadata.known_backends, "down,immuta,locked");
const noFile = await failure<GatewayError>(jobs.download(done, "no-such-file").next());
check("a download of no file fails", noFile.reason, "ARTIFACT_NOT_FOUND");
for (const wrong of ["immuta", "immuta/", "/1", ""]) {
  const error = await failure(jobs.wait(wrong));
  check(`"${wrong}" is refused`, error.message, `"${wrong}" is not a job; write "BACKEND/JOB_ID" or { backend, jobId }`);
}

const names = [running, "immuta/no-such-job", done, failed];
const seen = new Map<string, unknown[]>(names.map((job) => [job, []]));
for await (const update of jobs.follow(names, { timeoutMs: 60_000 })) {
  seen.get(name(update))?.push(outcome(update));
  const all = [...seen.values()].every((updates) => updates.length > 0);
  if (all && seen.get(running)?.length === 1) await admin(`jobs/${running.split("/")[1]}/finish`);
}
check("one job of many fails alone, the others end once", [...seen.values()], [
  ["RUNNING", "SUCCEEDED"],
  ["JOB_NOT_FOUND"],
  ["SUCCEEDED"],
  ["FAILED"],
]);

const held = await start({ held: "active" });
const ends: unknown[] = [];
for await (const update of jobs.follow([held], { timeoutMs: 1000 })) ends.push(outcome(update));
check("what has not ended fails at the timeout", ends, ["RUNNING", "NotEndedError"]);
check("the error says so in words", late.message, "DEADLINE_EXCEEDED: not ended after 1 s; it was RUNNING");
for await (const update of jobs.follow(held)) {
  check("a loop can be left", outcome(update), "RUNNING");
  break;
}
const controller = new AbortController();
const aborted = failure(jobs.wait(held, { signal: controller.signal }));
controller.abort(new Error("enough"));
check("a wait can be aborted", (await aborted).message, "enough");

jobs.close();
console.log(failures > 0 ? `${failures} failed` : "all good");
process.exitCode = failures > 0 ? 1 : 0;
