import createClient from "openapi-fetch";
import type { components, paths } from "./loraworks.js";

declare const process: { argv: string[] };
const api = createClient<paths>({ baseUrl: process.argv[2]! });
const method: components["schemas"]["LoraSpec"] = { type: "lora", r: 4, targets: ["query"] };
const created = await api.POST("/v1/jobs", { body: { method, tags: ["from-node"] } });
if (!created.data || !("id" in created.data)) throw new Error(created.error?.detail);
const path = { job_id: created.data.id };
const { data: job, error } = await api.GET("/v1/jobs/{job_id}", { params: { path } });
const bad = await api.POST("/v1/jobs", { body: { method: { type: "lora", r: 0 } } });
const answer = await api.POST("/predict", { body: { inputs: ["a film"] } });
console.log(JSON.stringify([job?.state ?? error, bad.error?.errors?.[0]?.at, answer.data]));
