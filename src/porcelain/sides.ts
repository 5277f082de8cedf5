import {
  type Assignments,
  capabilityDeclaration,
  type Ends,
  type ParameterName,
  parameterDeclaration,
} from '../settings/index.ts';

/** Of whoever has the file, which is not a process with a guest here. */
const FILE_PARAMETERS: ReadonlySet<string> = new Set(['direct-io'] satisfies ParameterName[]);

/** The assignments of `all` that one side of a migration is to get: each goes where it is read. */
export function assignmentsFor(side: 'source' | 'destination', all: Assignments): Assignments {
  const takes = (ends: Ends | undefined) => (side === 'source' ? ends !== 'destination' : ends !== undefined);
  return {
    capabilities: all.capabilities.filter(({ capability }) => takes(capabilityDeclaration(capability).ends)),
    parameters: Object.fromEntries(
      Object.entries(all.parameters).filter(
        ([name]) => !FILE_PARAMETERS.has(name) && takes(parameterDeclaration(name as ParameterName).ends),
      ),
    ),
  };
}
