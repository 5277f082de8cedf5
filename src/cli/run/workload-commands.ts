/** QMP commands that the embedded machine has beyond QEMU's: what its guest does and sees, and the proof that its state is right. */
import { freemem } from 'node:os';
import {
  arrayOf,
  bool,
  type Command,
  type CommandContext,
  defineCommand,
  empty,
  int,
  number,
  optional,
  refuse,
  required,
  str,
  struct,
} from '../../control/index.ts';
import type { Verdict, WorkloadMachine } from '../../machine/index.ts';
import { HANDSHAKE_SPOKEN } from '../../migration/index.ts';
import { CAPABILITY_NAMES, PARAMETER_NAMES } from '../../settings/index.ts';
import type { DeviceEvidence, DevicesInMachine } from '../../vfio/index.ts';
import { uuidText } from '../../wire/index.ts';

export interface RunningMachine {
  readonly workload: WorkloadMachine;
  readonly devices: DevicesInMachine;
}

/** `machine` is asked for when a command runs. */
export function workloadCommands(machine: () => RunningMachine): Command[] {
  return [machineCommand(machine), statusCommand(() => machine().workload), verifyCommand(machine)];
}

const MACHINE = struct('XMachine', {
  type: required(str, 'Machine type, as streams name it.'),
  uuid: optional(str, 'Absent if it has none.'),
  vcpus: required(int, 'Number of vCPUs.'),
  ram: required(
    arrayOf(
      struct('XRamBlock', {
        name: required(str, 'Name of the block.'),
        size: required(int, 'Bytes.'),
        'page-size': required(int, 'Bytes of a page.'),
      }),
    ),
    'Its memory.',
  ),
  'free-memory': required(int, 'Bytes of memory that its host has to give.'),
  'stop-time': optional(number, 'What its devices take to stop now, ms; absent if they do not tell.'),
  'load-time': optional(number, 'What devices like them take to be loaded here when their data is there, ms.'),
  handshake: required(int, 'Version of the handshake that it speaks (x-vmferry-handshake).'),
  given: required(
    arrayOf(str),
    'Migration capabilities and parameters that somebody has set; the others are as by default.',
  ),
});

function machineCommand(machine: () => RunningMachine): Command {
  return defineCommand({
    name: 'x-query-machine',
    doc: 'What the other end of a migration must have too.',
    arguments: empty,
    returns: MACHINE,
    run: async ({ host: { settings } }) => {
      const { workload, devices } = machine();
      const { machineType, uuid, vcpuCount, ram } = workload;
      const order = settings.parameter('x-device-config-load');
      const [stop, load] = await Promise.allSettled([
        devices.machine.switchoverCost('parallel'),
        devices.machine.loadCost(order),
      ]);
      return {
        type: machineType,
        ...(uuid === undefined ? {} : { uuid: uuidText(uuid) }),
        vcpus: vcpuCount,
        ram: ram.map(({ idstr, usedLength, pageSize }) => ({ name: idstr, size: usedLength, 'page-size': pageSize })),
        'free-memory': freemem(),
        ...(stop.status === 'fulfilled' ? { 'stop-time': stop.value.stopMs } : {}),
        ...(load.status === 'fulfilled' ? { 'load-time': load.value.ms } : {}),
        handshake: HANDSHAKE_SPOKEN,
        given: [...CAPABILITY_NAMES, ...PARAMETER_NAMES].filter((name) => settings.isGiven(name)),
      };
    },
  });
}

const STATUS = struct('XWorkloadStatus', {
  vcpus: required(int, 'Number of vCPUs.'),
  pattern: required(str, 'How the guest picks its pages.'),
  operations: required(int, 'Operations done by all vCPUs; each has written one page.'),
  'vcpu-operations': required(arrayOf(int), 'The same of each vCPU; empty before the machine has arrived.'),
  'dirty-rate': required(
    int,
    'Bytes of pages written per second since the last x-workload-status, or since the start.',
  ),
  'last-stop': required(
    number,
    'Downtime as the guest saw it: how long it could not run over its last stop, ms. 0 = not known.',
  ),
  'longest-gap': required(number, 'The longest time any vCPU ever could not run though it wanted to, ms.'),
  gaps: required(int, 'Number of such times longer than 10 ms, of all vCPUs.'),
});

function statusCommand(machineOf: () => WorkloadMachine): Command {
  let last = { operations: 0, atMs: performance.now() };
  return defineCommand({
    name: 'x-workload-status',
    doc: 'What the guest of the embedded machine does, and how its own clock saw the last migration.',
    arguments: empty,
    returns: STATUS,
    run: () => {
      const machine = machineOf();
      const { operations, vcpuOperations, lastStopMs, longestGapMs, gaps } = machine.statistics;
      const now = performance.now();
      // An arrival brings the source's count along: what was done elsewhere is no rate of ours.
      const done = Math.max(operations - last.operations, 0) * machine.targetPageSize;
      const dirtyRate = Math.round((done * 1000) / Math.max(now - last.atMs, 1));
      last = { operations, atMs: now };
      return {
        vcpus: machine.vcpuCount,
        pattern: machine.program.pattern,
        operations,
        'vcpu-operations': vcpuOperations,
        'dirty-rate': dirtyRate,
        'last-stop': lastStopMs,
        'longest-gap': longestGapMs,
        gaps,
      };
    },
  });
}

const VERDICT = struct('XWorkloadVerdict', {
  verified: required(bool, 'Every page and register is what the program leaves there.'),
  'pages-checked': required(int, 'Pages compared.'),
  'pages-bad': required(int, 'Pages that differ.'),
  'registers-bad': required(int, 'vCPUs whose registers do not follow from what they did.'),
  'devices-checked': required(
    int,
    'Emulated VFs whose state, and whose pages of guest memory, are among those compared.',
  ),
  details: required(arrayOf(str), 'The first differences, one sentence each.'),
});

function verifyCommand(machineOf: () => RunningMachine): Command {
  return defineCommand({
    name: 'x-workload-verify',
    doc:
      'Recomputes every page and register of the embedded machine from its program and compares. A guest that runs is stopped for it ' +
      'and set running again. Not during a migration.',
    arguments: empty,
    returns: VERDICT,
    run: async ({ host }: CommandContext) => {
      const status = host.queryMigrate().status ?? 'none';
      if (!['none', 'completed', 'failed', 'cancelled'].includes(status)) {
        throw refuse('GenericError', `The machine cannot be verified while it migrates (${status})`);
      }
      const { running } = host.status();
      await host.stop();
      try {
        const { workload, devices } = machineOf();
        return rendered(await workload.verify(), await devices.evidence());
      } finally {
        if (running) await host.cont();
      }
    },
  });
}

function rendered(verdict: Verdict, devices: readonly DeviceEvidence[]) {
  const { pagesChecked, pagesBad, bad, registersBad } = verdict;
  const memories = devices.flatMap(({ state, dma }) => (dma === undefined ? [state] : [state, dma]));
  const devicePagesBad = memories.reduce((sum, memory) => sum + memory.pagesBad, 0);
  const lost = lostWrites(devices);
  return {
    verified: pagesBad + devicePagesBad + registersBad.length === 0 && lost === 0,
    'pages-checked': memories.reduce((sum, memory) => sum + memory.pagesChecked, pagesChecked),
    'pages-bad': pagesBad + devicePagesBad,
    'registers-bad': registersBad.length,
    'devices-checked': devices.length,
    details: [
      ...bad.map(
        ({ block, page, offset, expected, found }) =>
          `${block}, page ${page}, byte ${offset}: ${expected} expected, ${found} found`,
      ),
      ...registersBad.map(
        ({ vcpu, operations, expected, found }) =>
          `vCPU ${vcpu} after ${operations} operations: accumulator ${expected} expected, ${found} found`,
      ),
      ...devices.flatMap(({ state, dma }, i) => [
        ...(state.pagesBad > 0 ? [`vf${i}: ${state.pagesBad} pages of its state, the first is ${state.firstBad}`] : []),
        ...(dma !== undefined && dma.pagesBad > 0
          ? [`vf${i}: ${dma.pagesBad} pages of guest memory that it writes to, the first is ${dma.firstBad}`]
          : []),
      ]),
      ...(lost === 0 ? [] : [`writes between devices: ${lost} were lost, or came when a device was stopped`]),
    ],
  };
}

/** What VFs have sent to one another and nobody has got, and what came too late. */
function lostWrites(devices: readonly DeviceEvidence[]): number {
  const sum = (pick: (device: DeviceEvidence) => number) => devices.reduce((total, device) => total + pick(device), 0);
  return Math.abs(sum((device) => device.peerSent - device.peerReceived)) + sum((device) => device.peerLate);
}
