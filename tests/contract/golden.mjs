// Checks schemas/golden/ in a second runtime: `node golden.mjs <schemas folder>` prints what it found, as JSON.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const read = (...path) => readFileSync(join(folder, ...path), "utf8");
const lines = (name) => read("golden", name).split("\n").filter(Boolean).map((line) => JSON.parse(line));

// RFC 8785: JavaScript's own order of keys, numbers and escapes is the standard's.
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}

const sha256 = (text) => createHash("sha256").update(text, "utf8").digest("hex");

const TYPES = {
  null: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number",
  integer: (value) => Number.isInteger(value),
  array: (value) => Array.isArray(value),
  object: (value) => value !== null && typeof value === "object" && !Array.isArray(value),
};

const TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;
const same = (one, other) => canonical(one) === canonical(other);
const silent = () => true;

// The keywords that our schemas use; another one stops the run, so that none is passed over.
const KEYWORDS = {
  $schema: silent, $defs: silent, title: silent, description: silent, default: silent,
  type: (value, type) => TYPES[type](value),
  const: same,
  enum: (value, allowed) => allowed.some((one) => same(value, one)),
  minimum: (value, least) => typeof value !== "number" || value >= least,
  pattern: (value, pattern) => typeof value !== "string" || new RegExp(pattern, "u").test(value),
  format: (value, format) => {
    if (format !== "date-time") throw new Error(`no format ${format} is known here`);
    return typeof value !== "string" || (TIME.test(value) && !Number.isNaN(Date.parse(value)));
  },
  minItems: (value, least) => !Array.isArray(value) || value.length >= least,
  maxItems: (value, most) => !Array.isArray(value) || value.length <= most,
  prefixItems: (value, schemas, root) =>
    !Array.isArray(value) || schemas.every((schema, at) => at >= value.length || valid(value[at], schema, root)),
  items: (value, schema, root) => !Array.isArray(value) || value.every((item) => valid(item, schema, root)),
  required: (value, names) => !TYPES.object(value) || names.every((name) => Object.hasOwn(value, name)),
  properties: (value, schemas, root) =>
    !TYPES.object(value) ||
    Object.entries(schemas).every(([name, schema]) => !Object.hasOwn(value, name) || valid(value[name], schema, root)),
  additionalProperties: (value, schema, root, parent) =>
    !TYPES.object(value) ||
    Object.keys(value).every((name) => Object.hasOwn(parent.properties ?? {}, name) || valid(value[name], schema, root)),
  anyOf: (value, schemas, root) => schemas.some((schema) => valid(value, schema, root)),
  $ref: (value, ref, root) => valid(value, root.$defs[ref.replace("#/$defs/", "")], root),
};

function valid(value, schema, root) {
  if (typeof schema === "boolean") return schema;
  return Object.entries(schema).every(([keyword, argument]) => {
    if (!Object.hasOwn(KEYWORDS, keyword)) throw new Error(`no keyword ${keyword} is known here`);
    return KEYWORDS[keyword](value, argument, root, schema);
  });
}

// What no JSON Schema says: integers that this runtime has rounded by now.
function safe(value) {
  if (typeof value === "number") return !Number.isInteger(value) || Number.isSafeInteger(value);
  return value === null || typeof value !== "object" || Object.values(value).every(safe);
}

function refusedBy({ schema: name, record }) {
  const schema = JSON.parse(read("json", `${name}.json`));
  if (!valid(record, schema, schema)) return "schema";
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
