/** QEMUs with the boot program, as the campaigns with QEMU have them. */
import { setTimeout as pause } from 'node:timers/promises';
import { CheckpointReader } from '../../src/machine/index.ts';
import { findPeers, type QemuPeer, QemuProcess, REQUIRED_PEERS } from '../../src/qemu/index.ts';
import type { RamSink } from '../../src/wire/index.ts';
import { readCounters, stateOf } from '../support/guests/boot-check.ts';
import { bootProgram, PAGE } from '../support/guests/boot-sector.ts';
import { bootGuest } from '../support/guests/guest.ts';

const PROGRAM = bootProgram({ pageCount: 2048, order: 'random', spin: 2_000 });
const GUEST = bootGuest(PROGRAM);
/** Every version has it. */
const MACHINE = 'pc-i440fx-7.2';
const PASS_TIMEOUT_MS = 30_000;
const FINALIZE_TIMEOUT_MS = 10_000;

/** The QEMUs that vmferry is proved against, as far as this machine has them. */
export async function provedPeers(): Promise<QemuPeer[]> {
  const names: readonly string[] = REQUIRED_PEERS;
  return (await findPeers()).filter(({ name }) => names.includes(name));
}

/** A QEMU whose guest works, or with `incoming` one that waits for it. */
export async function startQemu(peer: QemuPeer, { incoming = false } = {}): Promise<QemuProcess> {
  const qemu = await QemuProcess.start({
    peer,
    args: async (folder) => [
      ...['-nodefaults', '-accel', 'tcg', '-m', GUEST.memory, '-machine', MACHINE],
      ...(await GUEST.args(folder, folder)),
      ...(incoming ? ['-incoming', 'defer'] : []),
    ],
  });
  try {
    await qemu.qmp.execute('migrate-set-capabilities', {
      capabilities: ['events', 'return-path'].map((capability) => ({ capability, state: true })),
    });
    if (!incoming) await GUEST.ready(qemu);
    return qemu;
  } catch (error) {
    await qemu.stop();
    throw error;
  }
}

/** A QEMU says that its migration is over a moment before it leaves finish-migrate; its state from then on. */
export async function finalState({ qmp }: QemuProcess): Promise<string> {
  const deadlineMs = performance.now() + FINALIZE_TIMEOUT_MS;
  for (;;) {
    const { status } = await qmp.execute('query-status');
    if (status !== 'finish-migrate' || performance.now() > deadlineMs) return status;
    await pause(5);
  }
}

/** The guest goes on: it completes another pass over its memory. */
export async function expectWorks({ serial }: QemuProcess): Promise<void> {
  const letters = () => serial.text.replace(/[^A-Z]/g, '').length;
  const before = letters();
  await serial.waitFor(() => letters() > before || undefined, 'another pass of the guest', PASS_TIMEOUT_MS);
}

/** It goes on, each page of its memory fits, and so does what it has printed since QEMU was started. */
export async function expectWhole(qemu: QemuProcess): Promise<void> {
  await GUEST.check([qemu]);
}

/** A guest that has come from a checkpoint goes on, and each page of its memory fits. */
export async function expectArrived(qemu: QemuProcess): Promise<void> {
  await expectWorks(qemu);
  await qemu.qmp.execute('stop');
  stateOf(PROGRAM, await readCounters(qemu.qmp, PROGRAM, qemu.folder));
}

/** The guest's counters as they go by in a stream: what a checkpoint of it must hold. */
export class CounterSink implements RamSink {
  readonly counters = new Uint32Array(PROGRAM.pageCount);
  readonly #block: number;

  constructor(blocks: readonly { readonly idstr: string }[]) {
    this.#block = blocks.findIndex(({ idstr }) => idstr === 'pc.ram');
  }

  page(block: number, offset: number, from: Buffer, at: number): void {
    this.#put(block, offset, from.readUInt32LE(at));
  }

  zero(block: number, offset: number): void {
    this.#put(block, offset, 0);
  }

  read(): void {
    throw new Error('xbzrle is off');
  }

  #put(block: number, offset: number, counter: number): void {
    const index = (offset - PROGRAM.start) / PAGE;
    if (block === this.#block && index >= 0 && index < this.counters.length) this.counters[index] = counter;
  }
}

/** Opens the checkpoint, which checks all but pages, and reads the guest's counters from them. */
export async function readGuest(file: string): Promise<Uint32Array> {
  const reader = await CheckpointReader.open(file);
  try {
    const block = reader.ram.findIndex(({ idstr }) => idstr === 'pc.ram');
    const counters = new Uint32Array(PROGRAM.pageCount);
    for (let index = 0; index < counters.length; index++) {
      const page = PROGRAM.start / PAGE + index;
      const window = await reader.window(block, page);
      counters[index] = window.bytes.readUInt32LE((page - window.firstPage) * PAGE);
    }
    return counters;
  } finally {
    await reader.close();
  }
}

/** Whether some moment of the guest's program explains the counters. */
export function isMoment(counters: Uint32Array): boolean {
  try {
    stateOf(PROGRAM, counters);
    return true;
  } catch {
    return false;
  }
}

/**
 * Throws unless they are those of one moment. Of a QEMU 7.2 under TCG that is not expected: once in some fifty migrations it sends pages
 * that its guest has changed since (its own memory then differs from its stream).
 */
export function expectMoment({ peer }: QemuProcess, counters: Uint32Array): void {
  if (peer.name !== '7.2') stateOf(PROGRAM, counters);
}
