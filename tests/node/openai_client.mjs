// Asks a gateway with the official client, unmodified: `node openai_client.mjs URL KEY` prints what came of it, as JSON.
import OpenAI from "openai";

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const said = {};

const { data: whole, response } = await client.chat.completions.create({ model: "talk", messages }).withResponse();
said.whole = whole.choices[0].message.content;
said.finish = whole.choices[0].finish_reason;
said.total = whole.usage.total_tokens;
said.requestId = whole._request_id;
said.runId = response.headers.get("x-run-id");

const options = { model: "talk", messages, stream: true, stream_options: { include_usage: true } };
said.streamed = "";
for await (const chunk of await client.chat.completions.create(options)) {
  said.streamed += chunk.choices[0]?.delta.content ?? "";
  if (chunk.usage) said.usage = chunk.usage.total_tokens;
}

const called = await client.chat.completions.stream({ model: "tools", messages }).finalChatCompletion();
said.calls = called.choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments));
said.calledFinish = called.choices[0].finish_reason;

const format = {
  type: "json_schema",
  json_schema: {
    name: "answer",
    strict: true,
    schema: {
      type: "object",
      properties: { a: { type: "integer" } },
      required: ["a"],
      additionalProperties: false,
    },
  },
};
const parsed = await client.chat.completions.parse({ model: "json", messages, response_format: format });
said.parsed = JSON.parse(parsed.choices[0].message.content);

const response2 = await client.responses.create({ model: "talk", input: "hello" });
said.response = response2.output_text;
const events = client.responses.stream({ model: "tools", input: "hello" });
said.responseCalls = (await events.finalResponse()).output.map((item) => [item.type, item.arguments]);

const vectors = await client.embeddings.create({ model: "nomic-embed-text", input: ["one", "two"] });
said.widths = vectors.data.map((item) => item.embedding.length);
said.models = (await client.models.list()).data.map((model) => model.id);

try {
  await client.chat.completions.create({ model: "ollama/absent", messages });
} catch (error) {
  said.error = [error.constructor.name, error.status, error.code, error.type, Boolean(error.requestID)];
}
try {
  for await (const _ of await client.chat.completions.create({ model: "breaks", messages, stream: true }));
} catch (error) {
  said.broken = error.message;
}
console.log(JSON.stringify(said));
