/**
 * Runs one campaign at length and prints a table of what came out.
 *
 *   node dist/test/campaign/main.js cuts [--seed N] [--count N] [--parameters JSON]
 */
import { parseArgs } from 'node:util';
import { type Campaign, renderReport, runCampaign } from './campaign.ts';
import { crowd } from './crowd.ts';
import { deviceCuts } from './device-cuts.ts';
import { deviceFaults, FAULT_CASES } from './device-faults.ts';
import { embeddedCuts } from './embedded-cuts.ts';
import { kills } from './kills.ts';
import { multifdCuts } from './multifd-cuts.ts';
import { postcopyCuts } from './postcopy-cuts.ts';
import { postcopyQemuCuts } from './postcopy-qemu-cuts.ts';
import { postcopyRestores } from './postcopy-restores.ts';
import { qemuCuts } from './qemu-cuts.ts';
import { restoreCuts } from './restore-cuts.ts';
import { stateBuffers } from './state-buffers.ts';
import { strangers } from './strangers.ts';

interface Entry {
  readonly campaign: Campaign<never>;
  readonly count: number;
}

const CAMPAIGNS: Readonly<Record<string, Entry>> = {
  cuts: { campaign: embeddedCuts as Campaign<never>, count: 200 },
  'cuts-multifd': { campaign: multifdCuts as Campaign<never>, count: 200 },
  'cuts-devices': { campaign: deviceCuts as Campaign<never>, count: 200 },
  'faults-devices': { campaign: deviceFaults as Campaign<never>, count: FAULT_CASES.length },
  'cuts-postcopy': { campaign: postcopyCuts as Campaign<never>, count: 200 },
  'cuts-qemu': { campaign: qemuCuts() as Campaign<never>, count: 200 },
  'cuts-restore': { campaign: restoreCuts() as Campaign<never>, count: 60 },
  'cuts-postcopy-qemu': { campaign: postcopyQemuCuts() as Campaign<never>, count: 200 },
  'postcopy-restore': { campaign: postcopyRestores() as Campaign<never>, count: 12 },
  kills: { campaign: kills() as Campaign<never>, count: 100 },
  strangers: { campaign: strangers as Campaign<never>, count: 300 },
  buffers: { campaign: stateBuffers as Campaign<never>, count: 1000 },
  crowd: { campaign: crowd as Campaign<never>, count: 30 },
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seed: { type: 'string' }, count: { type: 'string' }, parameters: { type: 'string' } },
});
const entry = CAMPAIGNS[positionals[0] ?? ''];
if (entry === undefined) {
  console.error(`which campaign? ${Object.keys(CAMPAIGNS).join(', ')}`);
  process.exit(2);
}
// An orderly exit takes the QEMUs along.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
const seed = Number(values.seed ?? Date.now() % 1_000_000);
const count = Number(values.count ?? entry.count);
console.log(`seed ${seed}, ${count} cases`);
const report = await runCampaign(entry.campaign, {
  seed,
  count,
  ...(values.parameters === undefined ? {} : { parameters: JSON.parse(values.parameters) as never }),
  log: (line) => console.log(line),
});
console.log(renderReport(report));
process.exitCode = report.failures.length === 0 && report.rows.length > 0 ? 0 : 1;
