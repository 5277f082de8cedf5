/** A QEMU as one end of a cell: what it is told, and how it has ended. */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { explain } from '../../../src/base/index.ts';
import type { QemuProcess } from '../../../src/qemu/index.ts';
import { NotTaken, stillWaits } from './ends.ts';
import type { EndReport, Having, Side } from './model.ts';

/** Once vmferry has ended, a QEMU that still waits does so for ever: that is its own, and is told, ms. */
const QEMU_ENDS_MS = 4_000;
const FINALIZE_MS = 10_000;
const POLL_MS = 20;
const CONVERGE = { 'max-bandwidth': 0, 'downtime-limit': 30_000 };

/** Throws NotTaken: this QEMU refuses a setting where it is set. */
export async function prepare({ qmp }: QemuProcess, having: Having): Promise<void> {
  const capabilities = ['events', ...(having.capabilities ?? [])].map((capability) => ({ capability, state: true }));
  try {
    await qmp.execute('migrate-set-capabilities', { capabilities });
    await qmp.execute('migrate-set-parameters', { ...CONVERGE, ...having.parameters });
  } catch (refused) {
    throw new NotTaken(explain(refused));
  }
}

/** Where a QEMU listens. From 9.1 on it lives to tell why it failed. */
export async function listening({ qmp }: QemuProcess): Promise<string> {
  const uri = 'tcp:127.0.0.1:0';
  await qmp.execute('migrate-incoming', { uri, 'exit-on-error': false }).catch(async (error: unknown) => {
    if (!explain(error).includes('exit-on-error')) throw error;
    await qmp.execute('migrate-incoming', { uri });
  });
  const { 'socket-address': addresses } = await qmp.execute('query-migrate');
  const inet = addresses?.at(-1);
  assert(inet?.type === 'inet');
  return `tcp:127.0.0.1:${inet.port}`;
}

/** A person, who is there at once, until `over` has settled. */
export async function goOn({ qmp }: QemuProcess, over: Promise<unknown>): Promise<void> {
  let isOver = false;
  const note = () => {
    isOver = true;
  };
  over.then(note, note);
  while (!isOver) {
    const { status } = await qmp.execute('query-migrate').catch(() => ({ status: undefined }));
    if (status === 'pre-switchover') await qmp.execute('migrate-continue', { state: status }).catch(() => {});
    await pause(POLL_MS);
  }
}

export async function goOver({ qmp }: QemuProcess): Promise<void> {
  const info = await qmp.waitForMigration(['active', 'completed', 'failed']).catch(() => undefined);
  if (info?.status === 'active') await qmp.execute('migrate-start-postcopy').catch(() => {});
}

/** A QEMU says that its migration is over a moment before it leaves finish-migrate. */
export async function finalized({ qmp }: QemuProcess): Promise<void> {
  const deadline = performance.now() + FINALIZE_MS;
  const isFinishing = async () => (await qmp.execute('query-status')).status === 'finish-migrate';
  while ((await isFinishing()) && performance.now() < deadline) await pause(POLL_MS);
}

/** How a QEMU has ended; with x-colo one that runs the guest goes on to wait for the next state of it. */
export async function qemuEnd(qemu: QemuProcess, side: Side, signal: AbortSignal): Promise<EndReport> {
  const over = ['completed', 'failed', 'cancelled', 'colo'] as const;
  try {
    const { status, 'error-desc': desc = '' } = await qemu.qmp.waitForMigration(over, { signal });
    const completed = status === 'completed' || (status === 'colo' && side === 'destination');
    return { who: 'QEMU', side, completed, words: [desc, qemu.stderr].join(' ').trim() };
  } catch (thrown) {
    return { who: 'QEMU', side, completed: false, words: explain(thrown) };
  }
}

/** The same once vmferry has ended. A QEMU that waits for what never comes then would do so for ever; a source is told to give up. */
export async function leftBehind(qemu: QemuProcess, side: Side, ending: Promise<EndReport>): Promise<EndReport> {
  const ended = await Promise.race([ending, pause(QEMU_ENDS_MS)]);
  if (ended !== undefined) return ended;
  if (side === 'source') await qemu.qmp.execute('migrate_cancel');
  return { who: 'QEMU', side, completed: false, words: stillWaits('what never comes') };
}

/** As it was before a cell; `parameters`: those that it had then. */
export async function putBack(
  { qmp }: QemuProcess,
  having: Having,
  parameters: Readonly<Record<string, unknown>>,
): Promise<void> {
  const on = (await qmp.execute('query-migrate-capabilities')).filter(({ state }) => state);
  await qmp.execute('migrate-set-capabilities', {
    capabilities: on.map(({ capability }) => ({ capability, state: false })),
  });
  const names = Object.keys(having.parameters ?? {});
  const before = Object.fromEntries(names.map((name) => [name, parameters[name] ?? '']));
  await qmp.execute('migrate-set-parameters', before as Record<string, string | number | boolean>);
  if ((await qmp.execute('query-status')).status !== 'running') await qmp.execute('cont');
}
