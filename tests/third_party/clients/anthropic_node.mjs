// The @anthropic-ai/sdk package.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { ADD_SCHEMA, BASE_URL, KEY, LABEL, MESSAGES, MODEL, run } from "./checking.mjs";

const options = { baseURL: BASE_URL, apiKey: KEY, maxRetries: 0, timeout: 120_000 };
const client = new Anthropic(options);
const asked = { model: MODEL, messages: MESSAGES, max_tokens: 64, temperature: 0 };
const tools = [{ name: "add", input_schema: ADD_SCHEMA }];

await run(["@anthropic-ai/sdk"], {
  async messages() {
    const { data, response } = await client.messages.create(asked).withResponse();
    assert.ok(data.content[0].text);
    assert.equal(data.stop_reason, "end_turn");
    assert.equal(response.headers.get("x-ttrl-adapter"), LABEL);
    assert.equal(data._request_id, data.id);
  },
  async stream() {
    const whole = await client.messages.create(asked);
    let text = "";
    const stream = client.messages.stream(asked).on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    assert.equal(text, whole.content[0].text);
    assert.equal(final.content[0].text, text);
    assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  },
  async "tools, streamed"() {
    const tool_choice = { type: "tool", name: "add" };
    const final = await client.messages
      .stream({ ...asked, tools, tool_choice })
      .finalMessage();
    const [use] = final.content.filter((block) => block.type === "tool_use");
    assert.deepEqual(Object.keys(use.input).sort(), ["a", "b"]);
    assert.equal(final.stop_reason, "tool_use");
  },
  async count_tokens() {
    const { input_tokens } = await client.messages.countTokens({ model: MODEL, messages: MESSAGES });
    assert.ok(input_tokens > 0);
  },
  async "error classes"() {
    const bad = new Anthropic({ ...options, apiKey: "sk-ttrl-wrong" });
    await assert.rejects(bad.messages.create(asked), Anthropic.AuthenticationError);
    const other = client.messages.create({ ...asked, model: "claude" });
    await assert.rejects(other, Anthropic.NotFoundError);
    const empty = client.messages.create({ ...asked, messages: [] });
    await assert.rejects(empty, Anthropic.BadRequestError);
  },
});
