/**
 * Machines with VFs between two vmferry processes, as data: kinds of devices x how their state travels x how many x whether the guest runs faster
 * than the link carries. `device-cell.ts` plays them.
 */
import type { Result } from './model.ts';

export const BETWEEN = 'between';

/** What the VFs of a machine are like, in turn. */
export const DEVICE_KINDS = {
  'pre-copy and P2P': ['precopy=on,p2p=on'],
  'pre-copy': ['precopy=on,p2p=off,peer-rate=0'],
  P2P: ['precopy=off,p2p=on'],
  neither: ['precopy=off,p2p=off,peer-rate=0'],
  mixed: [
    'precopy=on,p2p=on',
    'precopy=off,p2p=on,config-lock=on,config-load-ms=20',
    'precopy=on,p2p=on,allocation-ms=100,load-bandwidth=50M',
    'precopy=off,p2p=on,dma-logging=off,deadlines=off',
  ],
} as const satisfies Readonly<Record<string, readonly string[]>>;
export type DeviceKind = keyof typeof DEVICE_KINDS;

export const DEVICE_WAYS = {
  'one channel': [],
  'four channels': ['--set', 'multifd=on', '--set', 'multifd-channels=4'],
} as const satisfies Readonly<Record<string, readonly string[]>>;
export type DeviceWay = keyof typeof DEVICE_WAYS;

export interface DeviceCell {
  readonly kind: DeviceKind;
  readonly way: DeviceWay;
  readonly vfs: number;
  /** Held for two rounds at least by a link that carries less than the guest dirties. */
  readonly live: boolean;
  /** Part of the subset that every test run plays. */
  readonly smoke: boolean;
}

const VFS_MAX = 4;

export function deviceCells(): readonly DeviceCell[] {
  const kinds = Object.keys(DEVICE_KINDS) as DeviceKind[];
  const ways = Object.keys(DEVICE_WAYS) as DeviceWay[];
  return kinds.flatMap((kind) =>
    ways.flatMap((way) =>
      [false, true].flatMap((live) =>
        Array.from({ length: VFS_MAX }, (_, i): DeviceCell => {
          const vfs = i + 1;
          return { kind, way, live, vfs, smoke: kind === 'mixed' && live && vfs === VFS_MAX };
        }),
      ),
    ),
  );
}

export function deviceScenario({ kind, live }: Pick<DeviceCell, 'kind' | 'live'>): string {
  return `devices/${kind}${live ? '/live' : ''}`;
}

export function deviceGuest({ vfs, way }: Pick<DeviceCell, 'vfs' | 'way'>): string {
  return `${vfs} VF${vfs === 1 ? '' : 's'}, ${way}`;
}

export function deviceCellName(cell: DeviceCell): string {
  return `${deviceScenario(cell)} ${BETWEEN} ${deviceGuest(cell)}`;
}

/** The part of docs/conformance.md. */
export function deviceSection(results: readonly Result[]): string[] {
  const own = results.filter(({ role }) => role === BETWEEN);
  if (own.length === 0) return [];
  const counts = Array.from({ length: VFS_MAX }, (_, i) => i + 1);
  const columns = (Object.keys(DEVICE_WAYS) as DeviceWay[]).flatMap((way) =>
    counts.map((vfs) => deviceGuest({ vfs, way })),
  );
  const rows = [...new Set(own.map(({ scenario }) => scenario))];
  const outcome = (scenario: string, guest: string) =>
    own.find((result) => result.scenario === scenario && result.guest === guest)?.outcome ?? '';
  return [
    '## Devices',
    '',
    'Between two vmferry processes (`run`), driven by `vmferry migrate`: machines with emulated VFs. Guest memory, the state of every VF and all that it',
    'has written to guest memory are verified where the guest ends. The matrix: test/conformance/devices.ts.',
    '',
    `| devices | ${columns.join(' | ')} |`,
    `|---|${columns.map(() => '---|').join('')}`,
    ...rows.map((scenario) => `| ${scenario} | ${columns.map((guest) => outcome(scenario, guest)).join(' | ')} |`),
    '',
  ];
}
