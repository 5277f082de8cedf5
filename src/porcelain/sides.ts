import type { Assignments, CapabilityName, ParameterName } from '../settings/index.ts';

/**
 * Which side of a migration a setting belongs to. What is not listed is the source's alone. Facts: qemu-wire 10.3 and 10.4 ("must
 * match"), and what only a destination reads.
 */
const BOTH_CAPABILITIES: ReadonlySet<CapabilityName> = new Set([
  'rdma-pin-all',
  'compress',
  'postcopy-ram',
  'x-colo',
  'block',
  'return-path',
  'multifd',
  'dirty-bitmaps',
  'x-ignore-shared',
  'postcopy-preempt',
  'switchover-ack',
  'mapped-ram',
]);
const DESTINATION_CAPABILITIES: ReadonlySet<CapabilityName> = new Set(['postcopy-blocktime', 'late-block-activate']);
const BOTH_PARAMETERS: ReadonlySet<ParameterName> = new Set([
  'multifd-channels',
  'multifd-compression',
  'tls-creds',
  'x-rdma-chunk-size',
]);
const DESTINATION_PARAMETERS: ReadonlySet<ParameterName> = new Set([
  'tls-authz',
  'x-device-config-load',
  'x-migration-max-queued-buffers-size',
]);
/** Of whoever has the file, which is not a process with a guest here. */
const FILE_PARAMETERS: ReadonlySet<string> = new Set(['direct-io'] satisfies ParameterName[]);

export function assignmentsFor(side: 'source' | 'destination', all: Assignments): Assignments {
  const source = side === 'source';
  const takes = <N>(name: N, both: ReadonlySet<N>, destination: ReadonlySet<N>) =>
    source ? !destination.has(name) : both.has(name) || destination.has(name);
  return {
    capabilities: all.capabilities.filter(({ capability }) =>
      takes(capability, BOTH_CAPABILITIES, DESTINATION_CAPABILITIES),
    ),
    parameters: Object.fromEntries(
      Object.entries(all.parameters).filter(
        ([name]) => !FILE_PARAMETERS.has(name) && takes(name as ParameterName, BOTH_PARAMETERS, DESTINATION_PARAMETERS),
      ),
    ),
  };
}
