// Drives the console in Chromium as people do. Prints one JSON object with what was seen; fails with the first
// expectation that does not hold.
//
//   node drive.mjs SCENARIO < settings.json
import { rm } from "node:fs/promises";
import { acts } from "./acts.mjs";
import { profile } from "./page.mjs";
import { portal } from "./portal.mjs";
import { rooms } from "./rooms.mjs";
import { session } from "./session.mjs";
import { tokens } from "./tokens.mjs";

const scenarios = { ...acts, ...portal, ...rooms, ...session, ...tokens };

try {
  const seen = await scenarios[process.argv[2]]();
  console.log(JSON.stringify(seen));
} finally {
  await rm(profile, { recursive: true, force: true });
}
