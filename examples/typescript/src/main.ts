/**
 * Register, resolve, promote, roll back, watch and download a model over gRPC.
 *
 *     npm start -- http://127.0.0.1:50051
 *
 * A token, where the registry asks for one, is read from MODELREG_TOKEN.
 */
import { createHash, randomUUID } from "node:crypto";

import { type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { AliasMove_Kind } from "./gen/modelregistry/v1/alias_pb.js";
import { AliasService } from "./gen/modelregistry/v1/alias_service_pb.js";
import { ArtifactService } from "./gen/modelregistry/v1/artifact_service_pb.js";
import { AuditEvent_Action } from "./gen/modelregistry/v1/audit_pb.js";
import { AuditService } from "./gen/modelregistry/v1/audit_service_pb.js";
import type { Model } from "./gen/modelregistry/v1/model_pb.js";
import { ModelService, RegisterModelRequestSchema } from "./gen/modelregistry/v1/model_service_pb.js";

const CHUNK_BYTES = 512 * 1024;

const withToken: Interceptor = (next) => (request) => {
  const token = process.env["MODELREG_TOKEN"];
  if (token) request.header.set("authorization", `Bearer ${token}`);
  return next(request);
};
const transport = createGrpcTransport({
  baseUrl: process.argv[2] ?? "http://127.0.0.1:50051",
  interceptors: [withToken],
});
const models = createClient(ModelService, transport);
const aliases = createClient(AliasService, transport);
const artifacts = createClient(ArtifactService, transport);
const audit = createClient(AuditService, transport);

/** The messages of a registration: the spec first, then the bytes in chunks. */
async function* registration(
  name: string,
  version: string,
  data: Uint8Array,
): AsyncGenerator<MessageInitShape<typeof RegisterModelRequestSchema>> {
  const spec = {
    model: { name, version, precisions: ["fp16"], metrics: { f1: 0.9 } },
    artifact: {
      fileName: "weights.bin",
      sizeBytes: BigInt(data.length),
      sha256: createHash("sha256").update(data).digest("hex"),
    },
  };
  yield { payload: { case: "spec", value: spec }, idempotencyKey: randomUUID() };
  for (let start = 0; start < data.length; start += CHUNK_BYTES) {
    yield { payload: { case: "chunk", value: data.subarray(start, start + CHUNK_BYTES) } };
  }
}

async function register(name: string, version: string, data: Uint8Array): Promise<Model> {
  const { model } = await models.registerModel(registration(name, version, data));
  if (!model) throw new Error("the answer has no model");
  return model;
}

/** Reads an artifact and compares its SHA-256 with what was registered. */
async function download(model: Model): Promise<void> {
  const digest = createHash("sha256");
  for await (const { payload } of artifacts.downloadArtifact({ modelId: model.id })) {
    if (payload.case === "chunk") digest.update(payload.value);
  }
  const found = digest.digest("hex");
  if (found !== model.artifact?.sha256) throw new Error(`the SHA-256 is ${found}, not ${model.artifact?.sha256}`);
  console.log(`downloaded ${model.artifact.sizeBytes} bytes with the right SHA-256`);
}

/** Shows how to decide by the reason of an error instead of its message. */
async function explainError(): Promise<void> {
  try {
    await models.getModel({ modelId: "no-such-model-0000" });
  } catch (error) {
    const refusal = ConnectError.from(error);
    if (refusal.code !== Code.NotFound) throw error;
    for (const info of refusal.findDetails(ErrorInfoSchema)) console.log(`refused as ${info.reason}`, info.metadata);
  }
}

const name = `example-ts-${randomUUID().slice(0, 8)}`;

// A watch from now on: its first message has only the token of where it begins.
const stop = new AbortController();
const watch = audit.watchAuditEvents({ filter: `name = "${name}"` }, { signal: stop.signal })[Symbol.asyncIterator]();
await watch.next();

const first = await register(name, "1.0.0", Buffer.from("weights of the first version"));
const second = await register(name, "1.1.0", Buffer.from("weights of the second version"));
const modelGroupId = second.modelGroupId;
console.log(`registered ${name}:1.0.0 and ${name}:1.1.0 in group ${modelGroupId}`);

for (const model of [first, second]) {
  await aliases.setAlias({
    modelGroupId,
    alias: "production",
    modelId: model.id,
    reason: "example",
    idempotencyKey: randomUUID(),
  });
}
const production = await models.resolveModel({ reference: `${name}@production` });
console.log(`${name}@production is version ${production.model?.version}`);

const rollback = await aliases.rollbackAlias({
  modelGroupId,
  alias: "production",
  expectedModelId: second.id,
  reason: "too slow",
  idempotencyKey: randomUUID(),
});
console.log(`rolled back to version ${rollback.alias?.version}`);

const { aliasMoves } = await aliases.listAliasMoves({ modelGroupId, alias: "production" });
for (const move of aliasMoves) {
  console.log(`  move ${move.revision}: ${AliasMove_Kind[move.kind]} to version ${move.after?.version} (${move.reason})`);
}

let pageToken = "";
do {
  const page = await models.listModels({
    filter: `name = "${name}"`,
    orderBy: "version desc",
    pageSize: 1,
    pageToken,
  });
  for (const model of page.models) console.log(`  ${model.name}:${model.version} aliases`, model.aliases);
  pageToken = page.nextPageToken;
} while (pageToken);

await download(first);

for (let seen = 0; seen < 5; ) {
  const { value: message, done } = await watch.next();
  if (done) throw new Error("the watch has ended");
  // Heartbeats have no event. Store message.resumeToken to go on here after a disconnection.
  if (message.event) {
    seen++;
    console.log(`  event ${message.event.sequence}: ${AuditEvent_Action[message.event.action]}`);
  }
}
stop.abort();

await explainError();
