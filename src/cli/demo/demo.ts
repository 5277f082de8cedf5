import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { migrate, type Outcome, type ProgressListener } from '../../porcelain/index.ts';
import { QmpClient } from '../../qemu/index.ts';
import type { Assignments } from '../../settings/index.ts';
import { type Timeline, timelineOf } from '../../vfio/index.ts';
import { type DeviceInfos, deviceRecordsOf } from '../run/device-commands.ts';
import { RunChild } from './run-child.ts';

export interface DemoOptions {
  /** Arguments of `run` for the machine that both processes have: --ram, --vcpus, ... */
  readonly machine: readonly string[];
  /** Migrations, to and fro; at least 1. */
  readonly rounds: number;
  readonly settings: Assignments;
  readonly signal: AbortSignal;
  readonly progress: ProgressListener;
  /** A migration is over. */
  readonly moved: (trip: Trip, number: number) => void;
}

/** One migration of the demo. */
export interface Trip {
  readonly outcome: Outcome;
  /** Downtime as the guest saw it by its own clock, ms. */
  readonly guestDowntimeMs?: number;
  readonly verification?: Verification;
  /** What its devices did; absent if there are none. */
  readonly devices?: Timeline;
}

/** Reply of x-workload-verify. */
export interface Verification {
  readonly verified: boolean;
  readonly 'pages-checked': number;
  readonly 'pages-bad': number;
  readonly 'registers-bad': number;
  readonly 'devices-checked': number;
  readonly details: readonly string[];
}

/** Two processes and live migrations between them, over tcp on this host; ends with the first that goes wrong. Cleans up always. */
export async function runDemo(options: DemoOptions): Promise<Trip[]> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-demo-'));
  const trips: Trip[] = [];
  const socket = (number: number) => join(folder, `qmp-${number}.sock`);
  const running: RunChild[] = [];
  try {
    let source = await RunChild.start(socket(0), options.machine, options.signal);
    running.push(source);
    for (let number = 1; number <= options.rounds; number++) {
      const args = [...options.machine, '--incoming', 'defer'];
      const destination = await RunChild.start(socket(number), args, options.signal);
      running.push(destination);
      const trip = await move(source, destination, options);
      trips.push(trip);
      options.moved(trip, number);
      if (!isGood(trip)) break;
      await source.stop();
      source = destination;
    }
    return trips;
  } finally {
    await Promise.all(running.map((child) => child.stop()));
    await rm(folder, { recursive: true, force: true });
  }
}

export function isGood({ outcome, verification }: Trip): boolean {
  return outcome.status === 'completed' && verification?.verified === true;
}

async function move(source: RunChild, destination: RunChild, options: DemoOptions): Promise<Trip> {
  const { signal, progress, settings } = options;
  const outcome = await migrate({
    source: source.qmp,
    destination: { qmp: destination.qmp, uri: 'tcp:127.0.0.1:0' },
    settings,
    signal,
    progress,
  });
  if (outcome.status !== 'completed') return { outcome };
  return await withQmp(destination, async (there) => {
    const guestDowntimeMs = await lastStop(there);
    const devices = timelineOf(await withQmp(source, deviceRecords), await deviceRecords(there));
    const verify = there.executeAny('x-workload-verify', undefined, { timeoutMs: 600_000 });
    const verification = (await verify) as Verification;
    return {
      outcome,
      verification,
      ...(guestDowntimeMs > 0 ? { guestDowntimeMs } : {}),
      ...(devices === undefined ? {} : { devices }),
    };
  });
}

async function withQmp<T>({ qmp: path }: RunChild, use: (qmp: QmpClient) => Promise<T>): Promise<T> {
  const qmp = await QmpClient.connect(path);
  try {
    return await use(qmp);
  } finally {
    qmp.close();
  }
}

async function deviceRecords(qmp: QmpClient) {
  return deviceRecordsOf((await qmp.executeAny('x-query-devices')) as DeviceInfos);
}

/** Known as soon as the vCPUs run, which may be a moment after everybody says that they do; 0 if they do not in this time, ms. */
const RUNNING_MS = 2_000;

async function lastStop(qmp: QmpClient): Promise<number> {
  for (const deadline = performance.now() + RUNNING_MS; ; await pause(10)) {
    const { 'last-stop': ms } = (await qmp.executeAny('x-workload-status')) as { readonly 'last-stop': number };
    if (ms > 0 || performance.now() > deadline) return ms;
  }
}
