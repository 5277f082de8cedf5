import { unreachable } from '../../base/index.ts';
import {
  CAPABILITY_NAMES,
  capabilityDeclaration,
  isVersionBefore,
  PARAMETER_NAMES,
  type ParameterName,
  parameterDeclaration,
} from '../../settings/index.ts';
import type { EndFacts } from './facts.ts';
import { about, fail, type Judgement, pass, programOf, type Rule, warn } from './rule.ts';
import { matters, type Settlement, settingText } from './settle.ts';

const capabilities: Rule = {
  name: 'capabilities',
  doc: 'Capabilities that both ends must agree on are the same.',
  judge: about(
    (facts) => facts.capabilities,
    (source, _, ends) => {
      const on = CAPABILITY_NAMES.filter((name) => source[name] === true);
      return orPass(
        CAPABILITY_NAMES.flatMap((name) => judgeCapability(name, ends.source, ends.destination) ?? []),
        on.length === 0 ? 'none is on at the source' : `at the source: ${on.join(', ')}`,
      );
    },
  ),
};

function judgeCapability(
  name: (typeof CAPABILITY_NAMES)[number],
  source: EndFacts,
  destination: EndFacts,
): Judgement | undefined {
  const { ends } = capabilityDeclaration(name);
  const [here, there] = [source.capabilities?.[name] === true, destination.capabilities?.[name]];
  if (here === (there === true)) return undefined;
  switch (ends) {
    case 'same':
    case 'implied':
      if (here && there === undefined)
        return fail(`${name} is on at the source, and ${programOf(destination, 'the destination')} does not know it`);
      if (here) return fail(`${name} is on at the source only`);
      return ends === 'same' ? onlyThere(name, source, destination) : undefined;
    case 'offered':
    case 'destination':
    case 'both or none':
    case 'at most':
    case undefined:
      return undefined;
    default:
      return unreachable(ends);
  }
}

/** A preempt channel that never comes: before 8.0 it is awaited with the main channel, later in a postcopy only. */
function onlyThere(name: string, { capabilities }: EndFacts, { program }: EndFacts): Judgement {
  const reason = `${name} is on at the destination only`;
  const isLater = program !== undefined && !isVersionBefore(program.version, '8.0');
  const harmless = name === 'postcopy-preempt' && isLater && capabilities?.['postcopy-ram'] !== true;
  return harmless ? warn(`${reason}: it will not be used`) : fail(reason);
}

const parameters: Rule = {
  name: 'parameters',
  doc: 'Parameters that both ends must agree on are the same, as far as the capability they belong to is on.',
  judge: about(
    (facts) => facts.parameters,
    (source, destination, ends) =>
      orPass(
        PARAMETER_NAMES.filter((name) => matters(name, ends.source)).flatMap(
          (name) => judgeParameter(name, source[name], destination[name]) ?? [],
        ),
        'those that must agree do',
      ),
  ),
};

function judgeParameter(name: ParameterName, source: unknown, destination: unknown): Judgement | undefined {
  const { ends, default: initial } = parameterDeclaration(name);
  // An end that does not know it does what its default says.
  const [here, there] = [source ?? initial, destination ?? initial];
  const difference = `${name} is ${settingText(here)} at the source, ${settingText(there)} at the destination`;
  if (ends === 'same') return here === there ? undefined : fail(difference);
  if (ends === 'both or none') return (here === '') === (there === '') ? undefined : fail(difference);
  return undefined;
}

const settled: Rule = {
  name: 'settled',
  doc: 'Settings in which two vmferry ends differ and that they settle between them, unless one insists on what it was given.',
  judge: (source, destination, found) => found.map((one) => judgeSettled(one, { source, destination })),
};

function judgeSettled(settlement: Settlement, ends: Record<'source' | 'destination', EndFacts>): Judgement {
  const { name, value } = settlement;
  const difference = `${name} is ${settingText(settlement.source)} at the source, ${settingText(settlement.destination)} at the destination`;
  const insists = (['source', 'destination'] as const).filter((end) => {
    const { parameters = {}, given = [] } = ends[end];
    return parameters['x-handshake-insist'] === true && given.includes(name) && settlement[end] !== value;
  });
  if (insists.length === 0) return warn(`${difference}: settled at ${settingText(value)}`);
  return fail(
    `${difference}: the ${insists.join(' and the ')} insists (x-handshake-insist), else it would be ${settingText(value)}`,
  );
}

function orPass(found: readonly Judgement[], otherwise: string): readonly Judgement[] {
  return found.length > 0 ? found : [pass(otherwise)];
}

/** 8.2 to 10.0 refuse it; 7.2 takes it, and its destination dies of it when the guest runs there already (qemu-wire 5.10). */
const MULTIFD_WITH_POSTCOPY = '10.1';

const multifdWithPostcopy: Rule = {
  name: 'multifd with postcopy',
  doc: `With both, both ends can go from one to the other: QEMU does it from ${MULTIFD_WITH_POSTCOPY} on.`,
  judge: (source, destination) => {
    if (source.capabilities?.['multifd'] !== true || source.capabilities['postcopy-ram'] !== true) return [];
    const programs = [source, destination].flatMap(({ program }) => program ?? []);
    const old = programs.find(({ version }) => isVersionBefore(version, MULTIFD_WITH_POSTCOPY));
    if (old !== undefined)
      return [
        fail(`multifd with postcopy-ram is too much for ${old.name}: QEMU does it from ${MULTIFD_WITH_POSTCOPY} on`),
      ];
    return [pass('from multifd to postcopy: both ends do it')];
  },
};

export const SETTING_RULES: readonly Rule[] = [settled, capabilities, parameters, multifdWithPostcopy];
