import { REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { compareVersions } from '../../src/settings/index.ts';
import type { Cell, LinuxGuest, MachineKind, Pair, Role, Scenario } from './model.ts';
import { SCENARIOS } from './scenarios.ts';

/** Machine types that all three versions have. */
const OLDEST = '7.2';
const NEWEST = '11.1';

const SAME: readonly Pair[] = REQUIRED_PEERS.map((name) => ({ a: name, b: name }));
const MIXED: readonly Pair[] = REQUIRED_PEERS.flatMap((a) =>
  REQUIRED_PEERS.filter((b) => b !== a).map((b) => ({ a, b })),
);

/** Played with every pair, every machine type the pair shares, and both chipsets; the others with like pairs only. */
const EVERYWHERE: readonly string[] = [
  'unix/plain',
  'unix/plain/live',
  'multifd/tcp',
  'multifd/tcp/live',
  'postcopy/preempt/recovery',
  'switchover-ack',
];

export const LINUX_GUESTS: readonly LinuxGuest[] = [
  { name: 'linux-pc', machine: 'pc', cpus: 1, devices: [] },
  { name: 'linux-pc-e1000-usb', machine: 'pc', cpus: 1, devices: ['e1000', 'usb', 'virtio-blk'] },
  { name: 'linux-pc-2cpu', machine: 'pc', cpus: 2, devices: ['virtio-net'] },
  { name: 'linux-q35-virtio', machine: 'q35', cpus: 1, devices: ['virtio-net', 'virtio-blk'] },
  // One network: the second user network of QEMU 10.0 and 11.1 is a section that 7.2 does not know ('slirp' 1).
  { name: 'linux-q35-2cpu', machine: 'q35', cpus: 2, devices: ['virtio-net', 'virtio-blk', 'usb'] },
  { name: 'linux-q35-numa', machine: 'q35', cpus: 1, devices: ['numa', 'virtio-blk'] },
];

/** How Linux guests are moved: by the engine against QEMU in both directions, by QEMUs that vmferry drives, and while they run on already. */
const LINUX_MOVES: readonly { readonly scenario: string; readonly roles: readonly Role[] }[] = [
  { scenario: 'unix/plain', roles: ['reference', 'migrate', 'save-restore'] },
  { scenario: 'postcopy/at-once', roles: ['source'] },
  { scenario: 'postcopy/preempt/recovery', roles: ['source'] },
];
/** The one of several vCPUs, which wait for pages at the same time, that every test run moves by postcopy. */
const LINUX_POSTCOPY_SMOKE = { guest: 'linux-pc-2cpu', peer: '11.1', scenario: 'postcopy/preempt/recovery' };

export function allCells(): readonly Cell[] {
  const cells: Cell[] = [];
  for (const scenario of SCENARIOS) {
    for (const role of scenario.roles) {
      for (const pair of EVERYWHERE.includes(scenario.id) ? pairsOf(role) : SAME) {
        if (scenario.since !== undefined && olderThan(pair, scenario.since)) continue;
        if (scenario.until !== undefined && newerThan(pair, scenario.until)) continue;
        for (const machine of machinesOf(scenario, pair)) {
          const cell = { scenario, role, pair, machine, guest: 'boot' } as const;
          cells.push({ ...cell, smoke: isSmoke(cell) });
        }
      }
    }
  }
  for (const guest of LINUX_GUESTS) {
    for (const move of LINUX_MOVES) {
      const scenario = scenarioOf(move.scenario);
      for (const role of move.roles) {
        for (const pair of role === 'source' ? SAME : pairsOf(role)) {
          if (losesStores(pair.a, guest)) continue;
          const cell = { scenario, role, pair, machine: machineName(guest.machine, OLDEST), guest };
          cells.push({ ...cell, smoke: isSmoke(cell) });
        }
      }
    }
  }
  return cells;
}

/**
 * QEMU 7.2 under TCG leaves pages of guests with several vCPUs behind when it migrates on a busy machine: in 3 of 40 tries 8 to 24 pages were stale
 * where it arrived, in one of them between two QEMUs without vmferry. A single vCPU had none in 13 tries, QEMU 11.1 none in 6.
 */
function losesStores(source: string, guest: LinuxGuest): boolean {
  return source === '7.2' && guest.cpus > 1;
}

/** The reference is QEMU's own affair: like pairs show that the runner is right. */
function pairsOf(role: Role): readonly Pair[] {
  return role === 'reference' ? SAME : [...SAME, ...MIXED];
}

function machinesOf(scenario: Scenario, pair: Pair): readonly string[] {
  if (!EVERYWHERE.includes(scenario.id)) return (scenario.chipsets ?? ['pc']).map((kind) => machineName(kind, pair.a));
  const newestShared = compareVersions(pair.a, pair.b) < 0 ? pair.a : pair.b;
  const versions = new Set([OLDEST, newestShared]);
  const between = (scenario.machines ?? []).filter((version) => compareVersions(version, newestShared) < 0);
  return [
    ...[...versions].flatMap((version) => [machineName('pc', version), machineName('q35', version)]),
    ...between.map((version) => machineName('pc', version)),
  ];
}

/**
 * What every test run plays: each scenario in each of vmferry's roles (or those that it names) on one version (they take turns; the live ones
 * on all three), the plain round trip also from each version to each later one; Linux guests with devices on one version, none from the oldest,
 * which loses a store of theirs now and then (seen once with one vCPU as well). A few reference
 * cells, since a runner that is wrong about QEMU itself is wrong about everything.
 */
function isSmoke({ scenario, role, pair, machine, guest }: Omit<Cell, 'smoke'>): boolean {
  const like = pair.a === pair.b;
  const forward = compareVersions(pair.a, pair.b) < 0;
  if (guest !== 'boot') {
    const chosen = LINUX_POSTCOPY_SMOKE;
    if (scenario.id === chosen.scenario) return guest.name === chosen.guest && pair.a === chosen.peer;
    if (role !== 'save-restore' || !like || pair.a === OLDEST) return false;
    return guest.devices.length > 0 && LINUX_GUESTS.indexOf(guest) % 3 === turn(pair.a);
  }
  if (scenario.id === 'unix/plain' && role === 'save-restore') {
    return forward ? machine === machineName('pc', OLDEST) : like && isOwn(machine, pair);
  }
  const severalMachines = EVERYWHERE.includes(scenario.id) || scenario.chipsets !== undefined;
  if (!like || (severalMachines && !isOwn(machine, pair))) return false;
  if (role === 'reference') return ['unix/plain/live', 'cancel/active'].includes(scenario.id);
  if (scenario.id === 'unix/plain/live') return true;
  if (scenario.smoke?.includes(role) === false) return false;
  if (recoversWithPreempt(scenario)) return pair.b === NEWEST;
  const place = SCENARIOS.indexOf(scenario) + scenario.roles.indexOf(role);
  return scenario.since !== undefined ? turn(pair.a) === 1 + (place % 2) : turn(pair.a) === place % 3;
}

/** The destination of QEMU 10.0 dies of it (SIGSEGV) in one of some forty recoveries, whether vmferry or itself is the source. */
function recoversWithPreempt({ capabilities = [], steps = [] }: Scenario): boolean {
  return capabilities.includes('postcopy-preempt') && steps.some((step) => 'act' in step && step.act === 'recover');
}

/** The version's own newest machine type; chipsets take turns over the versions. */
function isOwn(machine: string, { a, b }: Pair): boolean {
  return a === b && machine === machineName(turn(a) === 1 ? 'q35' : 'pc', a);
}

function turn(peer: string): number {
  return REQUIRED_PEERS.indexOf(peer as (typeof REQUIRED_PEERS)[number]);
}

export function machineName(kind: MachineKind, version: string): string {
  return kind === 'pc' ? `pc-i440fx-${version}` : `pc-q35-${version}`;
}

export function scenarioOf(id: string): Scenario {
  const found = SCENARIOS.find((scenario) => scenario.id === id);
  if (found === undefined) throw new RangeError(`no scenario ${id}`);
  return found;
}

function olderThan({ a, b }: Pair, version: string): boolean {
  return compareVersions(a, version) < 0 || compareVersions(b, version) < 0;
}

function newerThan({ a, b }: Pair, version: string): boolean {
  return compareVersions(a, version) > 0 || compareVersions(b, version) > 0;
}
