// What a browser makes of a page without any network: `node browser.mjs <page> <folder> <expression>` prints JSON.
// `folder` is for the browser's own files; `expression` is evaluated in the page once it has loaded.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [page, folder, expression] = process.argv.slice(2);
const TIMEOUT_MS = 50_000;

// The package unpacks the browser into the temporary folder; the libraries that machines without a desktop lack
// come with it only where it takes the machine for the one that it was made for.
process.env.TMPDIR = folder;
process.env.AWS_EXECUTION_ENV = `AWS_Lambda_nodejs${Math.max(22, parseInt(process.versions.node))}.x`;
const { default: chromium } = await import("@sparticuz/chromium");
chromium.setGraphicsMode = false;
const binary = process.env.CHROMIUM || (await chromium.executablePath());

// Its fonts come with it as well, under a path of their own.
process.env.FONTCONFIG_FILE = join(folder, "fonts.conf");
writeFileSync(
  process.env.FONTCONFIG_FILE,
  `<fontconfig><dir>${folder}/fonts</dir><cachedir>${folder}/fonts-cache</cachedir></fontconfig>`,
);

const flags = [
  "--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--window-size=1100,1400",
  "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe", `--user-data-dir=${join(folder, "profile")}`,
];
const browser = spawn(binary, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const giveUp = (reason) => {
  console.error(reason);
  browser.kill("SIGKILL");
  process.exit(1);
};
browser.on("error", giveUp).on("exit", (code) => giveUp(`the browser ended with ${code}`));
setTimeout(giveUp, TIMEOUT_MS, `the page had not loaded after ${TIMEOUT_MS} ms`);

// --- its protocol: JSON messages, each with a zero byte at its end ------------------------------

const seen = { console: [], errors: [], requests: [] };
const events = {
  "Runtime.consoleAPICalled": ({ args }) => seen.console.push(args.map((arg) => arg.value ?? arg.description).join(" ")),
  "Runtime.exceptionThrown": ({ exceptionDetails: { exception, text } }) => seen.errors.push(exception?.description ?? text),
  "Log.entryAdded": ({ entry }) => seen.errors.push(entry.text),
  "Network.requestWillBeSent": ({ request }) => seen.requests.push(request.url),
};
const waiting = new Map();
let sessionId;

function send(method, params = {}) {
  const id = waiting.size + 1;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  return new Promise((resolve) => waiting.set(id, resolve));
}

function hear({ id, method, params, result, error }) {
  if (error) giveUp(error.message);
  if (id) waiting.get(id)(result);
  else events[method]?.(params);
}

let rest = "";
browser.stdio[4].setEncoding("utf8").on("data", (chunk) => {
  const messages = (rest + chunk).split("\0");
  rest = messages.pop();
  messages.map((message) => JSON.parse(message)).forEach(hear);
});

// --- the page -----------------------------------------------------------------------------------

const { targetId } = await send("Target.createTarget", { url: "about:blank" });
({ sessionId } = await send("Target.attachToTarget", { targetId, flatten: true }));
for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
await send("Network.emulateNetworkConditions", { offline: true, latency: 0, downloadThroughput: 0, uploadThroughput: 0 });
const loaded = new Promise((resolve) => (events["Page.loadEventFired"] = resolve));
await send("Page.navigate", { url: pathToFileURL(page).href });
await loaded;
const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
if (exceptionDetails) seen.errors.push(exceptionDetails.text);
process.stdout.write(JSON.stringify({ ...seen, value: result.value }), () => {
  browser.removeAllListeners("exit").kill("SIGKILL");
  process.exit(0);
});
