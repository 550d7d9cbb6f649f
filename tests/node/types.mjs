// TypeScript types of the records: `node types.mjs <folder of JSON Schemas>` prints the module.
import canonical from "canonicalize";
import { compile } from "json-schema-to-typescript";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const names = readdirSync(folder).filter((name) => name.endsWith(".json")).sort();
const options = { bannerComment: "", additionalProperties: false, format: true };

const typeName = (name) =>
  name.replace(/^stillhouse\./, "").split("_").map((word) => word[0].toUpperCase() + word.slice(1)).join("");

// The schemas share definitions, which the generator would write once for each: they become one schema with all.
const merged = { title: "Records", type: "object", properties: {}, additionalProperties: false, required: [], $defs: {} };
const schemas = names.map((file) => [file.replace(/\.json$/, ""), JSON.parse(readFileSync(join(folder, file), "utf8"))]);
for (const [name, { $defs = {} }] of schemas) {
  for (const [type, schema] of Object.entries($defs)) {
    const other = merged.$defs[type];
    if (other && canonical(other) !== canonical(schema)) throw new Error(`${name}: ${type} is two different types`);
    merged.$defs[type] = schema;
  }
}
const shared = new Set(Object.keys(merged.$defs));
for (const [name, { $defs: _defs, $schema: _schema, ...schema }] of schemas) {
  const type = shared.has(typeName(name)) ? `${typeName(name)}Record` : typeName(name);
  merged.$defs[type] = { ...schema, title: type };
  merged.properties[name] = { $ref: `#/$defs/${type}` };
  merged.required.push(name);
}
// A title on a plain field would become a type of its own.
function untitled(value, inDefs) {
  if (Array.isArray(value)) return value.map((item) => untitled(item, false));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, item]) => key !== "title" || inDefs || typeof item !== "string")
      .map(([key, item]) => [key, key === "$defs" ? defs(item) : untitled(item, false)]),
  );
}
const defs = (all) => Object.fromEntries(Object.entries(all).map(([key, item]) => [key, untitled(item, true)]));

const source = await compile({ ...untitled(merged, true) }, "Records", options);
process.stdout.write(`// Made from schemas/json by tests/node/types.mjs; \`make docs\` writes it anew.\n\n${source}`);
