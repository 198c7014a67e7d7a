// The Vercel AI SDK, by both of its OpenAI providers: chat completions, and the Responses API.

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, streamText, tool } from "ai";
import { z } from "zod";
import { KEY, LABEL, MODEL, QUESTION, V1, run } from "./checking.mjs";

const compatible = createOpenAICompatible({
  name: "ttrl",
  baseURL: V1,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL: V1, apiKey: KEY });
const small = z.number().int().min(0).max(99);
const Sum = z.object({ a: small, b: small });
const add = tool({ inputSchema: Sum, execute: async ({ a, b }) => a + b });
const asked = { prompt: QUESTION, maxOutputTokens: 64, temperature: 0, maxRetries: 0 };

async function generate(model) {
  const answer = await generateText({ ...asked, model });
  assert.ok(answer.text);
  assert.equal(answer.finishReason, "stop");
  assert.ok(answer.usage.outputTokens > 0);
  assert.equal(answer.response.headers["x-ttrl-adapter"], LABEL);
  return answer.text;
}

async function stream(model) {
  const errors = [];
  const result = streamText({ ...asked, model, onError: ({ error }) => errors.push(error) });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.deepEqual(errors, []);
  assert.equal(text, await generate(model));
  assert.ok((await result.usage).outputTokens > 0);
}

async function structured(model) {
  const output = Output.object({ schema: Sum });
  const answer = await generateText({ ...asked, model, output });
  assert.deepEqual(Object.keys(answer.output).sort(), ["a", "b"]);
}

async function tools(model) {
  const toolChoice = { type: "tool", toolName: "add" };
  const answer = await generateText({ ...asked, model, tools: { add }, toolChoice });
  assert.equal(answer.toolCalls[0].toolName, "add");
  const { a, b } = answer.toolCalls[0].input;
  assert.equal(answer.toolResults[0].output, a + b);
}

await run(["ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai"], {
  "generateText (openai-compatible)": () => generate(compatible(MODEL)),
  "streamText (openai-compatible)": () => stream(compatible(MODEL)),
  "Output.object (openai-compatible)": () => structured(compatible(MODEL)),
  "tools (openai-compatible)": () => tools(compatible(MODEL)),
  "generateText (openai, Responses API)": () => generate(openai(MODEL)),
  "streamText (openai, Responses API)": () => stream(openai(MODEL)),
  "Output.object (openai, Responses API)": () => structured(openai(MODEL)),
  "tools (openai, Responses API)": () => tools(openai(MODEL)),
  "generateText (openai, chat)": () => generate(openai.chat(MODEL)),
  async "error class"() {
    const failing = generateText({ ...asked, model: compatible("gpt-4o") });
    await assert.rejects(failing, (error) => {
      assert.ok(APICallError.isInstance(error), error);
      assert.equal(error.statusCode, 404);
      return true;
    });
  },
});
