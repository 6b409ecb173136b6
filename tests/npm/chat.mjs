// One scenario with OpenAI's client for Node: `node chat.mjs <scenario> <base url>`. Writes what the client got, as one line of JSON.
import { createInterface } from "node:readline";
import OpenAI from "openai";

const [scenario, baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "sk-of-the-node-tests", maxRetries: 0, timeout: 30_000, defaultHeaders: { "cache-control": "no-store" } });
const question = { model: "small", messages: [{ role: "user", content: "Hello" }] };
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: { place: { type: "string" } } } } }];

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

async function described(asking) {
  try {
    await asking;
    return null;
  } catch (error) {
    return {
      class: error.constructor.name,
      status: error.status ?? null,
      code: error.code ?? null,
      type: error.type ?? null,
      param: error.param ?? null,
      hasRequestId: Boolean(error.requestID),
      message: error.message,
    };
  }
}

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const scenarios = {
  async chat() {
    const { data, response } = await client.chat.completions.create({ ...question, top_k: 40, metadata: { team: "x" } }).withResponse();
    return { data, requestId: data._request_id, provider: response.headers.get("x-joulegate-provider"), joules: response.headers.get("x-joulegate-energy-joules") };
  },

  async stream() {
    return read(await client.chat.completions.create({ ...question, stream: true }));
  },

  async usage() {
    return read(await client.chat.completions.create({ ...question, stream: true, stream_options: { include_usage: true } }));
  },

  // The accumulating helper, which fails on chunks that do not fit together.
  async tools() {
    const stream = client.chat.completions.stream({ ...question, tools, parallel_tool_calls: true });
    return (await stream.finalChatCompletion()).choices[0];
  },

  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    const one = await client.models.retrieve("lab/small");
    return { names, one: one.id, unknown: await described(client.models.retrieve("nope")) };
  },

  async error() {
    return described(client.chat.completions.create(question));
  },

  async invalid() {
    return described(client.chat.completions.create({ ...question, temperature: "hot" }));
  },

  async cut() {
    const stream = await client.chat.completions.create({ ...question, stream: true });
    return described(read(stream));
  },

  // Leaves after the first text and stays alive until it is told to end, so that it is the abort that closes the connection.
  async abort() {
    const stream = await client.chat.completions.create({ ...question, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) {
        stream.controller.abort();
        break;
      }
    }
    say("aborted");
    const lines = createInterface({ input: process.stdin });
    for await (const line of lines) {
      lines.close();
      return line;
    }
  },
};

say(await scenarios[scenario]());
