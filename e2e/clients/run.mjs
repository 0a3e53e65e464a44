// Runs Cloud API clients from the npm registry against `gateway dev`:
//
//   node e2e/clients/run.mjs
//
// Needs Go, node 20.19 or later and npm. All it makes lies in a temporary folder and goes with it. Exit status 0: all passed;
// 75: node is too old or npm could not fetch the clients, and a line that begins with "not run" says so; other: failed.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..");
const work = mkdtempSync(join(tmpdir(), "wagate-clients-"));
const notRun = 75; // sysexits: try again
const minute = 60_000; // ms

// What npm says when the registry is not reached or does not give, as opposed to what is wrong with our pins.
const unreachable = /npm (?:error|ERR!) code (ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT|E401|E403|E404|E407|E429|E5\d\d)/;

const children = new Set();
let stopped = false;

/** Starts a command and gives it with the promise of its end: the exit status, or 1 when it could not be started or was killed. */
function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit"], ...options });
  const ended = new Promise((resolve) => {
    child.once("error", (e) => { console.error(`${command}: ${e.message}`); resolve(1); });
    child.once("close", (code) => resolve(code ?? 1));
  });
  children.add(child);
  ended.then(() => children.delete(child));
  return { child, ended };
}

async function install() {
  for (const name of readdirSync(here)) {
    if (/^(package(-lock)?\.json|\.npmrc|.*\.mjs)$/.test(name)) cpSync(join(here, name), join(work, name));
  }
  const { child, ended } = start("npm", ["ci", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"],
    { cwd: work, stdio: ["ignore", "inherit", "pipe"], timeout: 2 * minute });
  let said = "";
  child.stderr.on("data", (data) => { said += data; });
  const code = await ended;
  if (code === 0) return 0;
  const why = unreachable.exec(said)?.[1] ?? (child.signalCode ? "no answer in time" : undefined);
  if (why) {
    console.log(`not run (no npm: ${why})`);
    return notRun;
  }
  console.error(said);
  return 1;
}

/** Builds the gateway and starts it; gives what its ready line says, or undefined when it ended without one. */
async function gateway() {
  const binary = join(work, "gateway");
  if (await start("go", ["build", "-o", binary, "./cmd/gateway"], { cwd: root }).ended !== 0) return undefined;
  const env = { ...process.env, WAGATE_LISTEN: "127.0.0.1:0" };
  for (const name of ["WAGATE_PUBLIC_URL", "WAGATE_RECIPIENT_ALLOW", "WAGATE_DATA_DIR"]) delete env[name]; // what a shell has set for another gateway
  const { child, ended } = start(binary, ["dev"], { cwd: work, env, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (data) => { log = (log + data).slice(-20_000); });
  const late = setTimeout(() => child.kill("SIGTERM"), 2 * minute);
  let ready;
  const lines = createInterface({ input: child.stdout });
  await Promise.race([ended, new Promise((resolve) => {
    lines.on("line", (line) => {
      const match = /^wagate ready (\S+) key=(\S+) from=(\S+) /.exec(line);
      if (match) resolve(ready = { url: match[1], key: match[2], from: match[3] });
    });
  })]);
  clearTimeout(late);
  if (!ready) console.error(log);
  return ready && { ...ready, child, ended, log: () => log };
}

async function run() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.log(`not run (node ${process.versions.node})`);
    return notRun;
  }
  const code = await install();
  if (code !== 0) return code;
  const g = await gateway();
  if (!g || stopped) {
    console.error("gateway dev did not get ready");
    return 1;
  }
  const tests = readdirSync(work).filter((name) => name.endsWith(".test.mjs")).sort();
  const env = { ...process.env, WAGATE_URL: g.url, WAGATE_KEY: g.key, WAGATE_FROM: g.from };
  delete env.NODE_OPTIONS;
  const failed = await start(process.execPath, ["--test", "--test-reporter=spec", ...tests], { cwd: work, env, timeout: 3 * minute }).ended;
  g.child.kill("SIGTERM");
  const ended = await g.ended;
  if (failed || ended) console.error(`tests exit ${failed}, gateway dev exit ${ended}; its last lines:\n${g.log()}`);
  return failed || ended;
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    stopped = true;
    for (const child of children) child.kill("SIGTERM");
  });
}
try {
  process.exitCode = await run();
} finally {
  for (const child of children) child.kill("SIGTERM");
  rmSync(work, { recursive: true, force: true, maxRetries: 3 });
}
