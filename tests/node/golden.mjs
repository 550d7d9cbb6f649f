// Checks schemas/golden/ in a second runtime: `node golden.mjs <schemas folder>` prints what it found, as JSON.
import Ajv from "ajv/dist/2020.js";
import canonical from "canonicalize";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const read = (...path) => readFileSync(join(folder, ...path), "utf8");
const lines = (name) => read("golden", name).split("\n").filter(Boolean).map((line) => JSON.parse(line));

const sha256 = (text) => createHash("sha256").update(text, "utf8").digest("hex");

const ajv = new Ajv({ strict: true, strictRequired: false, allErrors: true });
// RFC 3339 to the letter; the usual package of formats takes a space for the T.
const TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;
ajv.addFormat("date-time", (text) => TIME.test(text) && !Number.isNaN(Date.parse(text)));
const readers = new Map();

function valid(record, name) {
  if (!readers.has(name)) readers.set(name, ajv.compile(JSON.parse(read("json", `${name}.json`))));
  return readers.get(name)(record);
}

// What no JSON Schema says: integers that this runtime has rounded by now.
function safe(value) {
  if (typeof value === "number") return !Number.isInteger(value) || Number.isSafeInteger(value);
  return value === null || typeof value !== "object" || Object.values(value).every(safe);
}

function refusedBy({ schema: name, record }) {
  if (!valid(record, name)) return "schema";
  return safe(record) ? null : "numbers";
}

// docs/records.md, "The evidence id".
function evidenceId(run) {
  const roles = new Set((run.retrieved_context ?? []).map((text) => text.role ?? null).filter((role) => role !== null));
  const { messages, tools = null, params = {} } = run.request;
  const texts = (run.retrieved_context ?? []).map((text) => ({ role: null, score: null, ...text }));
  const payload = {
    task: run.task ? { key: null, ...run.task } : null,
    role: roles.size === 1 ? [...roles][0] : null,
    input: { messages, tools, params, retrieved_context: texts },
    output: run.output ? { tool_calls: null, finish_reason: null, ...run.output } : null,
    model: { digest: null, ...run.model },
  };
  return sha256(canonical({ version: "1", source: { kind: "stillhouse", key: run.run_id }, payload }));
}

const found = {
  canonical: lines("canonical.jsonl").map(({ value }) => ({ canonical: canonical(value), sha256: sha256(canonical(value)) })),
  evidence_ids: lines("evidence_ids.jsonl").map(({ run }) => evidenceId(run)),
  refused_by: lines("records.jsonl").map(refusedBy),
};
process.stdout.write(JSON.stringify(found));
