// Looks at the page of a gateway's admin address with Chromium.
//
//     node tests/clients/page.mjs ADMIN SIMULATOR BROWSER PICTURES
//
// ADMIN and SIMULATOR are the URLs of the gateway's admin address and its simulated
// Immuta, BROWSER is the folder of the browser, PICTURES that of the screenshots. The jobs
// that it looks at are watched by the test that starts it. Prints a line for each check and
// exits with 1 if any failed.

import assert from "node:assert";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [admin, simulator, browserFolder, pictures] = process.argv.slice(2);
// The packages are in the folder of the browser, not beside this file.
const require = createRequire(join(browserFolder, "../"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// The browser's package has its libraries and its only font.
const work = mkdtempSync(join(tmpdir(), "jobwatch-page-"));
const fonts = join(work, "fonts.conf");
writeFileSync(
  fonts,
  `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
  <dir>${browserFolder}/fonts</dir><cachedir>${work}/fonts</cachedir></fontconfig>`,
);
const browser = await chromium.launch({
  executablePath: join(browserFolder, "chromium"),
  // Root can't have the sandbox, and the only site is ours.
  args: ["--no-sandbox"],
  env: { ...process.env, HOME: work, FONTCONFIG_FILE: fonts, LD_LIBRARY_PATH: join(browserFolder, "al2023/lib") },
});

const PATIENCE = 60_000;
const complaints = [];
let failures = 0;

async function check(title, body) {
  try {
    await body();
    assert.deepStrictEqual(complaints.splice(0), []);
    console.log(`ok   ${title}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL ${title}\n${error.stack}`);
  }
}

// Runs `body` with a new page. Whatever the browser complains about is a failure.
async function withPage(path, options, body) {
  const { live = true, ...context } = options;
  const opened = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...context });
  try {
    const page = await opened.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("dialog", (dialog) => {
      complaints.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(`${admin}/`)) complaints.push(`request to ${request.url()}`);
    });
    await page.goto(admin + path);
    if (live) await shows(page, "#live", "Live");
    await body(page);
  } finally {
    await opened.close();
  }
}

const shows = (page, selector, text) =>
  page.waitForFunction(
    ([selector, text]) => document.querySelector(selector)?.textContent.includes(text),
    [selector, text],
  );
const lacks = (page, selector, text) =>
  page.waitForFunction(
    ([selector, text]) => !document.querySelector(selector)?.textContent.includes(text),
    [selector, text],
  );
const row = (page, table, text) => page.locator(`#${table} tr`).filter({ hasText: text });
const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });

// Calls the admin API of the simulator.
async function simulate(method, path, body) {
  const headers = body ? { "content-type": "application/json" } : {};
  const request = { method, headers, body: body && JSON.stringify(body) };
  const response = await fetch(`${simulator}/_simulator/${path}`, request);
  assert(response.ok, `${method} ${path}: ${response.status}`);
}

// What axe-core has to say. The script runs in a world of its own, so the page's policy
// stays in force.
async function accessible(page) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const world = { frameId: frameTree.frame.id, worldName: "axe" };
  const { executionContextId } = await session.send("Page.createIsolatedWorld", world);
  const evaluate = async (expression, awaitPromise = false) => {
    const call = { expression, contextId: executionContextId, awaitPromise, returnByValue: true };
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", call);
    assert(!exceptionDetails, JSON.stringify(exceptionDetails));
    return result.value;
  };
  await evaluate(`${axe};0`);
  const found = await evaluate(
    `axe.run().then(({ violations, passes }) => ({
      passes: passes.length,
      violations: violations.map(({ id, nodes }) => id + ": " + nodes.map((node) => node.html).join(", ")),
    }))`,
    true,
  );
  assert.deepStrictEqual(found.violations, []);
  assert(found.passes > 20, `axe-core made only ${found.passes} checks`);
}

const JOB = "live-job";
const HOSTILE = `"><img src=x onerror=alert(1)>/../a?b#c%2F`;
const BIDI = "invoice\u202egnp.exe";

await check("overview shows backends and jobs, and is accessible in both color schemes", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await withPage("/", { colorScheme }, async (page) => {
      await shows(page, "#backends", "healthy");
      assert.strictEqual(await page.title(), "Overview · jobwatch");
      assert.match(await row(page, "backends", "claret").innerText(), /unavailable/);
      assert.match(await row(page, "jobs", JOB).innerText(), /running\s+active/);
      await accessible(page);
      await picture(page, `overview-${colorScheme}`);
    });
  }
});

await check("policy of the page is in force", async () => {
  await withPage("/", {}, async (page) => {
    const violation = await page.evaluate(
      () =>
        new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "document.title = 'changed'";
          document.body.append(script);
        }),
    );
    assert.strictEqual(violation, "script-src-elem");
    assert.strictEqual(await page.title(), "Overview · jobwatch");
    const [complaint, ...others] = complaints.splice(0);
    assert.match(complaint, /Content Security Policy/);
    assert.deepStrictEqual(others, []);
  });
});

await check("narrow page needs no horizontal scrolling", async () => {
  const paths = ["/", `/jobs/immuta/${JOB}`, `/jobs/immuta/${encodeURIComponent(HOSTILE)}`, "/jobs/immuta/none"];
  for (const colorScheme of ["light", "dark"]) {
    for (const [number, path] of paths.entries()) {
      const options = { colorScheme, viewport: { width: 360, height: 740 }, live: number < 3 };
      await withPage(path, options, async (page) => {
        if (number === 3) complaints.splice(0);
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.strictEqual(width, 360, path);
        await accessible(page);
        await picture(page, `narrow-${colorScheme}-${number}`);
      });
    }
  }
});

await check("search and filters find jobs at the server, by keyboard", async () => {
  await withPage("/", {}, async (page) => {
    // The first stop leads past the header.
    await page.keyboard.press("Tab");
    assert.strictEqual(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.strictEqual(outline, "solid");
    await page.keyboard.press("Enter");
    assert.strictEqual(await page.evaluate(() => document.activeElement.id), "content");
    for (let stop = 0; stop < 20; stop += 1) {
      await page.keyboard.press("Tab");
      if ((await page.evaluate(() => document.activeElement.id)) === "q") break;
    }
    await page.keyboard.type("LIVE-J");
    await page.keyboard.press("Enter");
    await page.waitForURL(/q=LIVE-J/);
    await shows(page, "#live", "Live");
    assert.strictEqual(await page.locator("#jobs tr").count(), 1);
    assert.match(await row(page, "jobs", JOB).innerText(), /running/);
    assert.strictEqual(await page.locator("#q").inputValue(), "LIVE-J");
  });
  await withPage("/?show=failing&backend=claret", {}, async (page) => {
    assert.strictEqual(await page.locator("#jobs tr").count(), 1);
    assert.match(await row(page, "jobs", "claret/7").innerText(), /can't be reached/);
    assert.strictEqual(await page.locator("#show").inputValue(), "failing");
  });
  await withPage("/?q=nothing-like-it", {}, (page) => shows(page, "#jobs", "No job matches."));
});

await check("pages of jobs show each once", async () => {
  await withPage("/?q=many-", {}, async (page) => {
    const seen = new Set();
    for (let pages = 1; ; pages += 1) {
      for (const name of await page.locator("#jobs th").allInnerTexts()) seen.add(name);
      const next = page.getByRole("link", { name: "Next page" });
      if ((await next.count()) === 0) {
        assert.strictEqual(pages, 2);
        break;
      }
      assert.strictEqual(await page.locator("#jobs tr").count(), 50);
      await Promise.all([page.waitForURL(/from=/), next.click()]);
      await shows(page, "#live", "Live");
    }
    assert.strictEqual(seen.size, 60);
  });
});

await check("hostile names are shown harmlessly and lead to their own pages", async () => {
  await withPage("/?q=x%20onerror", {}, async (page) => {
    assert.strictEqual(await page.locator("img").count(), 0);
    assert.match(await row(page, "jobs", "onerror").innerText(), /immuta\/"><img src=x onerror=alert\(1\)>/);
    await row(page, "jobs", "onerror").getByRole("link").click();
    await page.waitForURL(/\/jobs\//);
    await shows(page, "#live", "Live");
    assert.strictEqual(await page.locator("h2 bdi").first().innerText(), HOSTILE);
    assert.match(await row(page, "facts", "State").innerText(), /running/);
  });
  await withPage("/?q=invoice", {}, async (page) => {
    const text = await row(page, "jobs", "invoice").getByRole("link").innerText();
    assert.strictEqual(text, "immuta/invoice\\u{202e}gnp.exe");
    await row(page, "jobs", "invoice").getByRole("link").click();
    await page.waitForURL(`${admin}/jobs/immuta/${encodeURIComponent(BIDI)}`);
    await shows(page, "#facts", "running");
  });
  await withPage("/jobs/immuta?id=..", {}, (page) => shows(page, "#facts", "running"));
});

await check("page without scripts has the same content", async () => {
  await withPage("/?q=live-j", { javaScriptEnabled: false, live: false }, async (page) => {
    assert.match(await row(page, "jobs", JOB).innerText(), /running\s+active/);
    assert.match(await row(page, "jobs", JOB).locator("time").first().innerText(), /^\d\d:\d\d:\d\d$/);
    assert.strictEqual(await page.locator("#pause").isVisible(), false);
    await page.getByRole("link", { name: "Refresh" }).click();
    assert.match(page.url(), /q=live-j/);
    await row(page, "jobs", JOB).getByRole("link").click();
    assert.match(await row(page, "history", "running").innerText(), /\d\d:\d\d:\d\d/);
  });
});

await check("changes arrive without reloading, keep the focus and are announced", async () => {
  await withPage("/", {}, async (overview) => {
    await withPage(`/jobs/immuta/${JOB}`, {}, async (detail) => {
      await overview.evaluate(() => (window.isSame = true));
      await overview.getByRole("link", { name: `immuta/${JOB}` }).focus();
      await simulate("PUT", `jobs/${JOB}/state`, { state: "created" });
      await shows(overview, "#jobs", "pending");
      await shows(detail, "#history", "pending");
      assert.strictEqual(await detail.locator("#history tr").count(), 2);
      const focused = await overview.evaluate(() => document.activeElement.textContent);
      assert.strictEqual(focused, `immuta/${JOB}`);
      await accessible(detail);
      await picture(detail, "job");

      await simulate("POST", `jobs/${JOB}/finish`, { failure: { message: "no <b>valid</b> rows" } });
      await shows(overview, "#recent", JOB);
      await lacks(overview, "#jobs", JOB);
      assert.match(await row(overview, "recent", JOB).innerText(), /failed[^]*no <b>valid<\/b> rows/);
      await shows(overview, "#news", `immuta ${JOB} failed`);
      await shows(detail, "#facts", "failed");
      await shows(detail, "#facts", "no <b>valid</b> rows");
      assert.deepStrictEqual(
        (await detail.locator("#history tr").allInnerTexts()).map((text) => text.split(/\s+/)[1]),
        ["failed", "pending", "running"],
      );
      assert.strictEqual(await overview.evaluate(() => window.isSame), true);
    });
  });
});

await check("updates can be paused and resumed", async () => {
  await withPage("/?q=paused", {}, async (page) => {
    await page.getByRole("button", { name: "Pause updates" }).click();
    await shows(page, "#live", "Paused");
    await simulate("PUT", "jobs/paused-job/state", { state: "created" });
    // Another page shows the change, so the gateway has seen it.
    await withPage("/jobs/immuta/paused-job", {}, (other) => shows(other, "#facts", "pending"));
    assert.match(await row(page, "jobs", "paused-job").innerText(), /running/);
    await page.getByRole("button", { name: "Resume updates" }).click();
    await shows(page, "#jobs", "pending");
  });
});

await check("errors of the page say what to do", async () => {
  for (const [path, status, text] of [
    ["/?show=some", 400, "show can't be used; write all, failing or quarantined"],
    ["/jobs/immuta/none", 404, "No call or watch is subscribed to this job"],
    ["/jobs/nowhere/1", 404, "No backend has this name."],
  ]) {
    await withPage(path, { live: false }, async (page) => {
      // The browser itself reports the status of the page.
      assert.match(complaints.splice(0).join("\n"), new RegExp(`^error: [^\n]*${status}[^\n]*$`));
      assert.match(await page.locator("main").innerText(), new RegExp(text));
      await accessible(page);
    });
  }
});

await browser.close();
rmSync(work, { recursive: true });
console.log(failures === 0 ? "all good" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
