// What each script for node is made of; the twin of checking.py, with the same line of JSON.

import { readFileSync } from "node:fs";

export const BASE_URL = process.env.TTRL_TEST_URL;
export const KEY = process.env.TTRL_TEST_KEY;
export const LABEL = process.env.TTRL_TEST_LABEL;
export const V1 = `${BASE_URL}/v1`;
export const MODEL = "ttrl";
export const QUESTION = "What is 12+34?";
export const MESSAGES = [{ role: "user", content: QUESTION }];
export const ADD_SCHEMA = {
  type: "object",
  properties: {
    a: { type: "integer", minimum: 0, maximum: 99 },
    b: { type: "integer", minimum: 0, maximum: 99 },
  },
  required: ["a", "b"],
  additionalProperties: false,
};

/** Run named checks in their order, print the line, and exit with 1 if one failed. */
export async function run(packages, checks) {
  const passed = [];
  const failed = {};
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      passed.push(name);
    } catch (error) {
      failed[name] = String(error.stack ?? error).slice(0, 2000);
      console.error(`--- ${name}\n`, error);
    }
  }
  const versions = Object.fromEntries(packages.map((name) => [name, version(name)]));
  console.log(JSON.stringify({ versions, passed, failed, notes: [] }));
  process.exit(Object.keys(failed).length ? 1 : 0);
}

function version(name) {
  const url = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")).version;
}
