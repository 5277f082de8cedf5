/** Our declarations against real QEMUs: the names each version has, their defaults, and which values are refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { QemuProcess, QmpError, REQUIRED_PEERS } from '../../src/qemu/index.ts';
import {
  CAPABILITY_NAMES,
  capabilityDeclaration,
  checkValue,
  PARAMETER_NAMES,
  type ParameterName,
  type ParameterType,
  parameterDeclaration,
} from '../../src/settings/index.ts';
import { peerOrSkip } from '../support/peers.ts';

/** QEMU 7.2 leaves the new level out of what it checks; both are refused from the next check on. */
const UNCHECKED: Readonly<Record<string, readonly string[]>> = {
  '7.2': ['multifd-zlib-level=10', 'multifd-zstd-level=21'],
};

function isBefore(a: string, b: string): boolean {
  return a.localeCompare(b, 'en', { numeric: true }) < 0;
}

function exists({ since, removed }: { since: string; removed?: string }, version: string): boolean {
  return since !== 'vmferry' && !isBefore(version, since) && (removed === undefined || isBefore(version, removed));
}

/** Values on both sides of each edge. Enumerations are compared by the schema (test/control/as-qemu.test.ts). */
function probes(type: ParameterType): readonly unknown[] {
  switch (type.kind) {
    case 'int':
      return [type.min - 1, type.min, ...(type.max < 2 ** 53 ? [type.max, type.max + 1] : [])];
    case 'size': {
      const from = type.powerOfTwoFrom;
      return [1.5, '1', ...(from === undefined ? [0, 2 ** 63] : [from / 2, from, from + 1, from * 2])];
    }
    case 'bool':
      return [true, 0];
    case 'string':
      return [null, 'x', 3];
    case 'enum':
      return ['no such value', 1];
    case 'list':
      return ['x'];
  }
}

for (const version of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(version);

  test(`QEMU ${version} has the declared capabilities and parameters, defaults and ranges`, { skip }, async () => {
    assert(peer !== undefined);
    const qemu = await QemuProcess.start({ peer, args: ['-nodefaults', '-machine', 'none', '-accel', 'tcg'] });
    try {
      const capabilities = (await qemu.qmp.executeAny('query-migrate-capabilities')) as {
        capability: string;
        state: boolean;
      }[];
      const known = CAPABILITY_NAMES.filter((name) => exists(capabilityDeclaration(name), version));
      assert.deepEqual(capabilities.map(({ capability }) => capability).sort(), [...known].sort());
      assert.ok(capabilities.every(({ state }) => !state));

      const parameters = (await qemu.qmp.executeAny('query-migrate-parameters')) as Record<string, unknown>;
      const current = PARAMETER_NAMES.filter((name) => exists(parameterDeclaration(name), version));
      const reported = current.filter((name) => parameterDeclaration(name).hidden !== true);
      const defaults = reported.map((name) => [name, parameterDeclaration(name).default]);
      assert.deepEqual(parameters, Object.fromEntries(defaults));

      const differences: string[] = [];
      for (const name of current) {
        const { type, default: initial } = parameterDeclaration(name);
        for (const value of probes(type)) {
          const accepts = await takes(qemu, name, value);
          const text = `${name}=${JSON.stringify(value)}`;
          // Rules between parameters are ours too, but not the type's: 1 is below cpu-throttle-initial.
          const isTaken = checkValue(type, value) !== undefined && text !== 'max-cpu-throttle=1';
          if (accepts !== (isTaken || UNCHECKED[version]?.includes(text) === true)) {
            differences.push(`${text}: QEMU ${accepts ? 'takes' : 'refuses'} it`);
          }
        }
        if (type.kind !== 'list') assert.equal(await takes(qemu, name, initial), true, name);
      }
      assert.deepEqual(differences, []);
    } finally {
      await qemu.stop();
    }
  });
}

async function takes(qemu: QemuProcess, name: ParameterName, value: unknown): Promise<boolean> {
  try {
    await qemu.qmp.executeAny('migrate-set-parameters', { [name]: value });
    return true;
  } catch (error) {
    if (error instanceof QmpError) return false;
    throw error;
  }
}
