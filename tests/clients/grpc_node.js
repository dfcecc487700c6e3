// Calls a gateway with grpc-js, from proto/ as it is.
//
//     node tests/clients/grpc_node.js GATEWAY PROTO_DIRECTORY SIMULATOR COMMON_PROTOS
//
// SIMULATOR is the URL of the gateway's simulated Immuta, COMMON_PROTOS the directory of
// google/rpc/*.proto, which is loaded together with the contract. Prints a line for each
// check and exits with 1 if any failed.

const assert = require("node:assert");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, proto, simulator, common] = process.argv.slice(2);
const backend = "immuta";

let failures = 0;
function check(title, got, wanted) {
  try {
    assert.deepStrictEqual(got, wanted);
    console.log(`ok   ${title}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL ${title}\n${error.message}`);
  }
}

const files = ["jobwatch/v1/job_status_service.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"];
const definition = loader.loadSync(files, {
  includeDirs: [proto, common],
  enums: String,
  longs: String,
  oneofs: true,
});
const { JobStatusService } = grpc.loadPackageDefinition(definition).jobwatch.v1;
const client = new JobStatusService(address, grpc.credentials.createInsecure());
const deadline = () => ({ deadline: Date.now() + 20_000 });

function getJobStatus(request) {
  return new Promise((resolve) => {
    client.GetJobStatus(request, deadline(), (error, response) => resolve({ error, response }));
  });
}

function watchJob(request, seen) {
  return new Promise((resolve) => {
    const events = [];
    const call = client.WatchJob(request, deadline());
    call.on("data", (event) => {
      events.push(event);
      seen(event);
    });
    call.on("error", () => {});
    call.on("status", ({ code }) => resolve({ events, code }));
  });
}

async function startJob() {
  const plan = { method: "POST", headers: { "content-type": "application/json" }, body: '{"held":"active"}' };
  const response = await fetch(`${simulator}/_simulator/jobs`, plan);
  return { backend, jobId: (await response.json()).id };
}

function finishJob({ jobId }) {
  return fetch(`${simulator}/_simulator/jobs/${jobId}/finish`, { method: "POST" });
}

async function main() {
  const job = await startJob();
  const { response } = await getJobStatus({ job });
  check("a get returns its job", { ...response?.status?.job }, job);

  const { events, code } = await watchJob({ job }, ({ status }) => {
    if (status?.state === "JOB_STATE_RUNNING") finishJob(job);
  });
  const states = events.filter(({ event }) => event === "status").map(({ status }) => status.state);
  check("a watch shows how it goes on", states, ["JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"]);
  check("its last status is terminal", events.at(-1)?.status?.terminal, true);
  check("it ends with OK", code, grpc.status.OK);

  const { error } = await getJobStatus({ job: { backend, jobId: "no-such-job" } });
  check("an unknown job is NOT_FOUND", error?.code, grpc.status.NOT_FOUND);
  const [bytes] = error?.metadata?.get("grpc-status-details-bin") ?? [];
  const { details } = definition["google.rpc.Status"].deserialize(bytes);
  const { value } = details.find((detail) => detail.type_url.endsWith("/google.rpc.ErrorInfo"));
  check("its details are decoded", definition["google.rpc.ErrorInfo"].deserialize(value).reason, "JOB_NOT_FOUND");

  client.close();
  console.log(failures ? `${failures} failed` : "all good");
  process.exitCode = failures ? 1 : 0;
}

main();
