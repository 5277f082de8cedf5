/**
 * The matrix of machine types: every one from 5.2 to 11.1, in every pair of QEMUs that both have it, over multifd, where most of a dialect
 * shows. Cells are those of the conformance matrix and are played by its runner.
 */
import { REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { compareVersions } from '../../src/settings/index.ts';
import { machineName, scenarioOf } from '../conformance/matrix.ts';
import type { Cell, Pair, Role } from '../conformance/model.ts';

export const MACHINE_VERSIONS = [
  ...['5.2', '6.0', '6.1', '6.2', '7.0', '7.1', '7.2', '8.0', '8.1', '8.2'],
  ...['9.0', '9.1', '9.2', '10.0', '10.1', '10.2', '11.0', '11.1'],
] as const;

/** QEMU to QEMU driven by vmferry; and by way of a checkpoint, vmferry itself at the other end both times. */
export const PLAYED_ROLES = ['migrate', 'save-restore'] as const satisfies readonly Role[];

export const PAIRS: readonly Pair[] = REQUIRED_PEERS.flatMap((a) => REQUIRED_PEERS.map((b) => ({ a, b })));

/** A QEMU has the machine types of its own version and of those before it. */
export function hasMachine(peer: string, version: string): boolean {
  return compareVersions(version, peer) <= 0;
}

export function machineCells(): readonly Cell[] {
  const scenario = scenarioOf('multifd/tcp');
  return MACHINE_VERSIONS.flatMap((version) =>
    PAIRS.filter(({ a, b }) => hasMachine(a, version) && hasMachine(b, version)).flatMap((pair) =>
      PLAYED_ROLES.map((role) => {
        return { scenario, role, pair, machine: machineName('pc', version), guest: 'boot', smoke: false } as const;
      }),
    ),
  );
}
