// Calls RecommendationService.Recommend from the .proto files alone, without generated code.
//
//   node recommend.mjs <host:port> '{"user_id": "user-1", "page_size": 5}'
//
// Prints {"response": …} or {"code": …, "details": …, "trailers": […]} as JSON.

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const protos = join(dirname(fileURLToPath(import.meta.url)), "../../proto");
const definition = protoLoader.loadSync("braid/v1/recommendation.proto", {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: Number,
});
const { RecommendationService } = grpc.loadPackageDefinition(definition).braid.v1;

const [address, request] = process.argv.slice(2);
const client = new RecommendationService(address, grpc.credentials.createInsecure());
client.Recommend(JSON.parse(request), { deadline: Date.now() + 10_000 }, (error, response) => {
  const answer = error
    ? { code: grpc.status[error.code], details: error.details, trailers: Object.keys(error.metadata.getMap()) }
    : { response };
  console.log(JSON.stringify(answer));
  client.close();
});
