// The openai package on npm.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ADD_SCHEMA, KEY, LABEL, MESSAGES, MODEL, QUESTION, V1, run } from "./checking.mjs";

const options = { baseURL: V1, apiKey: KEY, maxRetries: 0, timeout: 120_000 };
const client = new OpenAI(options);
const small = z.number().int().min(0).max(99);
const Sum = z.object({ a: small, b: small });
const asked = { model: MODEL, messages: MESSAGES, max_tokens: 64, temperature: 0 };
const TOOL = { type: "function", function: { name: "add", parameters: ADD_SCHEMA, strict: true } };

await run(["openai"], {
  async chat() {
    const { data, response } = await client.chat.completions.create(asked).withResponse();
    assert.ok(data.choices[0].message.content);
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.equal(data.model, MODEL);
    assert.ok(data.usage.completion_tokens > 0);
    assert.equal(response.headers.get("x-ttrl-adapter"), LABEL);
    assert.equal(data._request_id, data.id);
  },
  async "chat stream"() {
    const whole = await client.chat.completions.create(asked);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    assert.equal(text, whole.choices[0].message.content);
  },
  async "chat stream helper"() {
    const stream = client.chat.completions.stream({
      ...asked,
      stream_options: { include_usage: true },
    });
    let text = "";
    stream.on("content", (piece) => (text += piece));
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, text);
    assert.ok((await stream.totalUsage()).completion_tokens > 0);
  },
  async parse() {
    const answer = await client.chat.completions.parse({
      ...asked,
      response_format: zodResponseFormat(Sum, "sum"),
    });
    assert.deepEqual(Object.keys(answer.choices[0].message.parsed).sort(), ["a", "b"]);
  },
  async tools() {
    const answer = await client.chat.completions.create({
      ...asked,
      tools: [TOOL],
      tool_choice: { type: "function", function: { name: "add" } },
    });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "add");
    const told = { role: "tool", tool_call_id: call.id, content: "46" };
    const final = await client.chat.completions.create({
      ...asked,
      messages: [...MESSAGES, answer.choices[0].message, told],
    });
    assert.ok(final.usage.completion_tokens > 0);
  },
  async responses() {
    const answer = await client.responses.create({
      model: MODEL,
      input: QUESTION,
      max_output_tokens: 64,
      temperature: 0,
    });
    assert.ok(answer.output_text);
    assert.equal(answer.status, "completed");
    let text = "";
    const stream = client.responses.stream({
      model: MODEL,
      input: QUESTION,
      max_output_tokens: 64,
      temperature: 0,
    });
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const final = await stream.finalResponse();
    assert.equal(final.output_text, text);
    assert.equal(text, answer.output_text);
  },
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.deepEqual(names.slice(0, 2), [MODEL, `${MODEL}@base`]);
  },
  async "feedback by client.post"() {
    const answer = await client.chat.completions.create(asked);
    const stored = await client.post("/feedback", { body: { id: answer.id, score: 1 } });
    assert.equal(stored.id, answer.id);
  },
  async "error classes"() {
    const bad = new OpenAI({ ...options, apiKey: "sk-ttrl-wrong" });
    await assert.rejects(bad.models.list(), OpenAI.AuthenticationError);
    const other = { ...asked, model: "gpt-4o" };
    await assert.rejects(client.chat.completions.create(other), OpenAI.NotFoundError);
    const hot = { ...asked, temperature: 9 };
    await assert.rejects(client.chat.completions.create(hot), OpenAI.BadRequestError);
    const embed = client.embeddings.create({ model: MODEL, input: QUESTION });
    await assert.rejects(embed, OpenAI.NotFoundError);
  },
});
