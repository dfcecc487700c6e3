// Calls a gateway from a page in Chromium: gRPC-Web with connect-web, events with EventSource.
//
//     node tests/clients/web.mjs SIMULATOR BROWSER DESCRIPTORS
//
// SIMULATOR is the URL of a simulated Immuta, BROWSER the folder of the browser, DESCRIPTORS the
// file with the contract's descriptors. The page and its modules come from this script. It
// prints the site of the page first, and reads the address of a gateway that lists this site
// from its input. Then it prints a line for each check and exits with 1 if any failed.

import assert from "node:assert";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";

const [simulator, browserFolder, descriptors] = process.argv.slice(2);
const modules = join(browserFolder, "../node_modules");
const require = createRequire(join(browserFolder, "../"));
const { chromium } = require("playwright-core");

const work = mkdtempSync(join(tmpdir(), "jobwatch-web-"));
const fonts = join(work, "fonts.conf");
writeFileSync(
  fonts,
  `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
  <dir>${browserFolder}/fonts</dir><cachedir>${work}/fonts</cachedir></fontconfig>`,
);

const PAGE = `<!doctype html><title>page</title><script type="importmap">{
  "imports": {
    "@bufbuild/protobuf": "/modules/@bufbuild/protobuf/dist/esm/index.js",
    "@bufbuild/protobuf/": "/modules/@bufbuild/protobuf/dist/esm/",
    "@bufbuild/protobuf/codegenv1": "/modules/@bufbuild/protobuf/dist/esm/codegenv1/index.js",
    "@bufbuild/protobuf/codegenv2": "/modules/@bufbuild/protobuf/dist/esm/codegenv2/index.js",
    "@bufbuild/protobuf/reflect": "/modules/@bufbuild/protobuf/dist/esm/reflect/index.js",
    "@bufbuild/protobuf/wire": "/modules/@bufbuild/protobuf/dist/esm/wire/index.js",
    "@bufbuild/protobuf/wkt": "/modules/@bufbuild/protobuf/dist/esm/wkt/index.js",
    "@connectrpc/connect": "/modules/@connectrpc/connect/dist/esm/index.js",
    "@connectrpc/connect/protocol": "/modules/@connectrpc/connect/dist/esm/protocol/index.js",
    "@connectrpc/connect/protocol-connect": "/modules/@connectrpc/connect/dist/esm/protocol-connect/index.js",
    "@connectrpc/connect/protocol-grpc": "/modules/@connectrpc/connect/dist/esm/protocol-grpc/index.js",
    "@connectrpc/connect/protocol-grpc-web": "/modules/@connectrpc/connect/dist/esm/protocol-grpc-web/index.js",
    "@connectrpc/connect-web": "/modules/@connectrpc/connect-web/dist/esm/index.js"
  }
}</script><script type="module">
  import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
  import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
  import { createClient, ConnectError, Code } from "@connectrpc/connect";
  import { createGrpcWebTransport } from "@connectrpc/connect-web";

  const bytes = new Uint8Array(await (await fetch("/descriptors")).arrayBuffer());
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
  const service = registry.getService("jobwatch.v1.JobStatusService");
  window.clientOf = (baseUrl) => createClient(service, createGrpcWebTransport({ baseUrl }));
  window.errorOf = (error) => {
    const { code, rawMessage, details } = ConnectError.from(error);
    const schema = registry.getMessage("google.rpc.ErrorInfo");
    const info = ConnectError.from(error).findDetails(schema)[0];
    return { code: Code[code], message: rawMessage, reason: info?.reason, job: info?.metadata?.job_id };
  };
  window.ready = true;
</script>`;

// The site: the page, its modules, and the descriptors.
function serve(request, response) {
  const path = new URL(request.url, "http://localhost").pathname;
  const send = (type, body) => response.writeHead(200, { "content-type": type }).end(body);
  if (path === "/") {
    send("text/html", PAGE);
  } else if (path === "/descriptors") {
    send("application/octet-stream", readFileSync(descriptors));
  } else if (path.startsWith("/modules/")) {
    send("text/javascript", readFileSync(join(modules, path.slice("/modules/".length))));
  } else {
    response.writeHead(404).end();
  }
}

async function site() {
  const server = http.createServer(serve).unref();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

const [origin, other] = [await site(), await site()];
console.log(origin);
const input = createInterface({ input: process.stdin });
const gateway = (await input[Symbol.asyncIterator]().next()).value;
input.close();

// What lies between the browser and the gateway, and cuts connections.
const [host, port] = [gateway.slice(0, gateway.lastIndexOf(":")), Number(gateway.split(":").at(-1))];
const open = new Set();
const proxy = net.createServer((client) => {
  const server = net.connect(port, host);
  for (const [from, to] of [[client, server], [server, client]]) {
    open.add(from);
    from.on("error", () => {});
    from.on("close", () => {
      open.delete(from);
      to.destroy();
    });
    from.pipe(to);
  }
});
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${proxy.address().port}`;

function cut() {
  assert.ok(open.size > 0, "a connection is open");
  for (const socket of open) {
    socket.destroy();
  }
}

const browser = await chromium.launch({
  executablePath: join(browserFolder, "chromium"),
  // Root can't have the sandbox, and the only site is ours.
  args: ["--no-sandbox"],
  env: { ...process.env, HOME: work, FONTCONFIG_FILE: fonts, LD_LIBRARY_PATH: join(browserFolder, "al2023/lib") },
});

async function pageOf(site) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", (error) => console.log(`the page says: ${error.message}`));
  await page.goto(`${site}/`);
  await page.waitForFunction(() => window.ready);
  return page;
}

async function setState(job, state) {
  const path = `jobs/${job}/state`;
  const body = { state };
  const request = { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`${simulator}/_simulator/${path}`, request);
  assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`);
}

let failures = 0;

async function check(title, body) {
  try {
    await body();
    console.log(`ok   ${title}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL ${title}\n${error.stack}`);
  }
}

try {
  const page = await pageOf(origin);

  await check("unary call has the status", async () => {
    const status = await page.evaluate(async (url) => {
      const job = { backend: "immuta", jobId: "done" };
      const { status } = await clientOf(url).getJobStatus({ job });
      return { state: status.state, vendorState: status.vendorState, terminal: status.terminal };
    }, url);
    assert.deepStrictEqual(status, { state: 5, vendorState: "completed", terminal: true });
  });

  await check("error has its details", async () => {
    const error = await page.evaluate(async (url) => {
      const job = { backend: "immuta", jobId: "missing" };
      return clientOf(url).getJobStatus({ job }).catch(errorOf);
    }, url);
    const message = "the vendor does not know this job";
    assert.deepStrictEqual(error, { code: "NotFound", message, reason: "JOB_NOT_FOUND", job: "missing" });
  });

  await check("error of a stream has its details", async () => {
    const error = await page.evaluate(async (url) => {
      const job = { backend: "immuta", jobId: "missing" };
      try {
        for await (const _ of clientOf(url).watchJob({ job })) {
        }
      } catch (error) {
        return errorOf(error);
      }
    }, url);
    assert.strictEqual(error.reason, "JOB_NOT_FOUND");
  });

  await check("deadline of the page ends the call with the server's words", async () => {
    const error = await page.evaluate(async (url) => {
      const job = { backend: "immuta", jobId: "resumed" };
      try {
        for await (const _ of clientOf(url).watchJob({ job }, { timeoutMs: 2000 })) {
        }
      } catch (error) {
        return errorOf(error);
      }
    }, url);
    assert.strictEqual(error.code, "DeadlineExceeded");
  });

  await check("stream that is cut is resumed with its token", async () => {
    await page.evaluate((url) => {
      window.states = [];
      window.cuts = 0;
      window.watched = (async () => {
        let resumeToken = "";
        const job = { backend: "immuta", jobId: "resumed" };
        for (;;) {
          try {
            for await (const response of clientOf(url).watchJob({ job, resumeToken })) {
              resumeToken = response.resumeToken || resumeToken;
              if (response.event.case === "status") {
                states.push(response.event.value.vendorState);
              }
            }
            return;
          } catch (error) {
            cuts += 1;
          }
        }
      })();
    }, url);
    await page.waitForFunction(() => states.length === 1);
    cut();
    await page.waitForFunction(() => cuts > 0);
    await setState("resumed", "active");
    await page.waitForFunction(() => states.length === 2);
    cut();
    await setState("resumed", "completed");
    await page.evaluate(() => watched);
    assert.deepStrictEqual(await page.evaluate(() => states), ["created", "active", "completed"]);
  });

  await check("EventSource resumes by itself and stops at the end", async () => {
    await page.evaluate((url) => {
      window.states = [];
      window.errors = 0;
      window.source = new EventSource(`${url}/v1/backends/immuta/jobs/events/events?view=BASIC`);
      source.addEventListener("status", (event) => states.push(JSON.parse(event.data).status.vendorState));
      source.addEventListener("error", () => (errors += 1));
    }, url);
    await page.waitForFunction(() => states.length === 1);
    cut();
    await page.waitForFunction(() => errors > 0);
    await setState("events", "active");
    await page.waitForFunction(() => states.length === 2);
    await setState("events", "completed");
    await page.waitForFunction(() => source.readyState === EventSource.CLOSED);
    assert.deepStrictEqual(await page.evaluate(() => states), ["created", "active", "completed"]);
  });

  await check("page reads JSON and the wait of an error", async () => {
    const read = await page.evaluate(async (url) => {
      const body = JSON.stringify({ jobs: [{ backend: "immuta", jobId: "done" }] });
      const headers = { "content-type": "application/json", authorization: "Bearer x" };
      const response = await fetch(`${url}/v1/jobs:batchGet`, { method: "POST", headers, body });
      return [response.status, (await response.json()).results[0].status.state];
    }, url);
    assert.deepStrictEqual(read, [200, "JOB_STATE_SUCCEEDED"]);
  });

  await check("page of another site reads nothing", async () => {
    const foreign = await pageOf(other);
    const outcomes = await foreign.evaluate(async (url) => {
      const job = { backend: "immuta", jobId: "done" };
      const call = await clientOf(url).getJobStatus({ job }).then(() => "read", (error) => errorOf(error).code);
      const get = await fetch(`${url}/v1/backends/immuta/jobs/done`).then(() => "read", () => "refused");
      return [call, get];
    }, url);
    assert.deepStrictEqual(outcomes, ["Unknown", "refused"]);
  });
} finally {
  await browser.close();
  proxy.close();
  rmSync(work, { recursive: true, force: true });
}
console.log(failures === 0 ? "all good" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
