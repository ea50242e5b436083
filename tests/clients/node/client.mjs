// Runs every scenario with the stock OpenAI client and prints what each saw as one JSON object.
// Arguments: the URL of a daemon that serves, and of one whose queue is full.

import OpenAI, { toFile } from "openai";

const [url, fullUrl] = process.argv.slice(2);
const messages = [{ role: "user", content: "one two three" }];
const nobody = { apiKey: "none", maxRetries: 0, timeout: 20_000 };
const client = new OpenAI({ baseURL: `${url}/v1`, ...nobody });
const full = new OpenAI({ baseURL: `${fullUrl}/v1`, ...nobody });
const chat = (fields) => client.chat.completions.create({ model: "echo", messages, ...fields });
const complete = (fields) => client.completions.create({ prompt: "four five", max_tokens: 2, model: "echo", ...fields });

async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function caught(work) {
  try {
    return { none: await work() };
  } catch (error) {
    const { status, code, param, message } = error;
    return { kind: error.constructor.name, isApiError: error instanceof OpenAI.APIError, status, code, param, message };
  }
}

async function batch() {
  const endpoint = "/v1/chat/completions";
  const line = JSON.stringify({ custom_id: "a", method: "POST", url: endpoint, body: { model: "echo", messages } });
  const file = await client.files.create({ file: await toFile(Buffer.from(line), "in.jsonl"), purpose: "batch" });
  let done = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });
  while (["validating", "in_progress", "finalizing"].includes(done.status)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    done = await client.batches.retrieve(done.id);
  }
  const text = await (await client.files.content(done.output_file_id)).text();
  const listed = (await collected(client.batches.list())).map((one) => one.id);
  return { done, text, listed, deleted: await client.files.delete(file.id) };
}

const scenarios = {
  batch,
  models: () => collected(client.models.list()),
  model: () => client.models.retrieve("tiny"),
  chat: () => chat(),
  choices: () => chat({ n: 2 }),
  seeded: () => Promise.all([1, 2].map(() => chat({ model: "tiny", seed: 7, temperature: 1, max_tokens: 20 }))),
  stopped: () => complete({ model: "tiny", max_tokens: 50, temperature: 0, stop: ["a", "e", "s"] }),
  completion: () => complete(),
  streamed: async () => collected(await chat({ stream: true, stream_options: { include_usage: true } })),
  streamedCompletion: async () => collected(await complete({ stream: true })),
  helper: () => client.chat.completions.stream({ model: "echo", messages }).finalChatCompletion(),
  continued: async () => {
    const answer = await client.chat.completions.stream({ model: "echo", messages }).finalMessage();
    return chat({ messages: [...messages, answer, ...messages] });
  },
  aborted: async () => {
    const stream = await chat({ model: "slow", stream: true, max_tokens: 100_000 });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
    return stream.controller.signal.aborted;
  },
  notFound: () => caught(() => chat({ model: "ecko" })),
  badRequest: () => caught(() => chat({ temperature: 99 })),
  unknownField: () => caught(() => chat({ temprature: 1 })),
  forbidden: () => caught(() => client.models.list({ headers: { origin: "https://example.com" } })),
  rateLimit: () => caught(() => full.chat.completions.create({ model: "echo", messages })),
  workerFailed: () => caught(() => chat({ model: "broken" })),
  brokenStream: () => caught(async () => collected(await chat({ model: "dying", stream: true, max_tokens: 100 }))),
};

const seen = {};
for (const [name, scenario] of Object.entries(scenarios)) {
  seen[name] = await scenario().catch((error) => ({ unexpected: String(error.stack) }));
}
console.log(JSON.stringify(seen));
