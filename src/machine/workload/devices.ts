/**
 * The machine's devices as sections of the stream: one description each, in stream order. What a section carries is the whole
 * device; nothing of the machine but RAM is outside of them.
 */
import { Writer } from '../../base/index.ts';
import {
  buffer,
  type Description,
  globalState,
  globalStateOf,
  i64,
  type StateOf,
  struct,
  subsection,
  text,
  u32,
  u64,
  unused,
  type VmdescDevice,
  vmdescDevice,
  vmdescText,
  vmstate,
} from '../../wire/index.ts';
import type { DeviceSection, SavedDevices } from '../machine.ts';
import type { PacedProgram } from './hardware.ts';
import { PAGE_SIZE } from './layout.ts';
import type { Pattern } from './program.ts';

/** `dirty_rate` of a program that runs as fast as it can. */
export const UNLIMITED_RATE = 0xffff_ffff_ffff_ffffn;

/** What the vCPUs compute and on how much memory. The destination takes the program over, but not sizes: those it must have. */
export const workloadConfig = vmstate({
  name: 'workload-config',
  version: 1,
  fields: {
    ram_size: u64,
    vcpus: u32,
    seed: u32,
    pattern: text(16),
    fill_ppm: u32,
    /** Bytes a second of all vCPUs together; all ones: as fast as they can. */
    dirty_rate: u64,
  },
});
export type WorkloadConfig = StateOf<typeof workloadConfig>;

export function configOf(program: PacedProgram, ramBytes: number, vcpuCount: number): WorkloadConfig {
  const { seed, pattern, fillPpm, dirtyRate } = program;
  const dirty_rate = dirtyRate === Infinity ? UNLIMITED_RATE : BigInt(dirtyRate);
  return { ram_size: BigInt(ramBytes), vcpus: vcpuCount, seed, pattern, fill_ppm: fillPpm, dirty_rate };
}

export function programOf(config: WorkloadConfig & { readonly pattern: Pattern }): PacedProgram {
  const { seed, pattern, fill_ppm, dirty_rate } = config;
  return { seed, pattern, fillPpm: fill_ppm, dirtyRate: dirty_rate === UNLIMITED_RATE ? Infinity : Number(dirty_rate) };
}

/** Times of `cpu` are those of this host clock: 16 bytes that differ from host to host. */
const timerHost = vmstate({ name: 'timer/host-clock', version: 1, fields: { clock_id: buffer(16) } });

/** As QEMU's `timer`, version 2: the machine's clock. */
export const timer = vmstate({
  name: 'timer',
  version: 2,
  fields: { cpu_ticks_offset: i64, unused: unused(8), cpu_clock_offset: i64 },
  subsections: { hostClock: subsection(timerHost) },
});
export type TimerState = StateOf<typeof timer>;

/** What the guest itself has seen of its being stopped. ns of the host clock; 0 = unknown. */
const cpuGaps = vmstate({
  name: 'cpu-gaps',
  version: 1,
  fields: { quiet_since: u64, longest: u64, last_stop: u64, count: u64 },
});

export const cpu = vmstate({
  name: 'cpu',
  version: 1,
  fields: { operations: u64, accumulator: u32, gaps: struct(cpuGaps) },
});
export type CpuState = StateOf<typeof cpu>;

const consoleUnread = vmstate({ name: 'workload-console/unread', version: 1, fields: { unread: u32 } });

/** Bytes of text the console keeps. */
export const CONSOLE_BYTES = 1024;

/** The last text the machine wrote; sent as unread if nobody has read it all. */
export const workloadConsole = vmstate({
  name: 'workload-console',
  version: 1,
  fields: { written: u64, lines: u32, ring: buffer(CONSOLE_BYTES) },
  subsections: { unread: subsection(consoleUnread, ({ unread }) => unread > 0) },
});
export type ConsoleState = StateOf<typeof workloadConsole>;

/** State of all devices. */
export interface DeviceStates {
  readonly config: WorkloadConfig;
  readonly timer: TimerState;
  readonly cpus: readonly CpuState[];
  readonly console: ConsoleState;
  /** Run state before the migration stopped the machine: what the destination goes on with. */
  readonly runState: string;
}

export function saveDevices(states: DeviceStates, machineType: string): SavedDevices {
  const sections: DeviceSection[] = [];
  const devices: VmdescDevice[] = [];
  const add = <S>(description: Description<S>, state: S, instance = 0): void => {
    const writer = new Writer(description.byteLength(state));
    description.encode(writer, state);
    const { name: idstr, version } = description;
    sections.push({ idstr, instance, version, body: writer.bytes() });
    devices.push(vmdescDevice(description, state, { idstr, instance }));
  };
  add(workloadConfig, states.config);
  add(timer, states.timer);
  for (const [instance, state] of states.cpus.entries()) add(cpu, state, instance);
  add(workloadConsole, states.console);
  add(globalState, globalStateOf(states.runState));
  const configuration = { machineType, targetPageBits: undefined, capabilities: undefined, uuid: undefined };
  return { sections, description: vmdescText(configuration, PAGE_SIZE, devices) };
}
