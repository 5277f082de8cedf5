import {
  CAPABILITY_NAMES,
  type CapabilityName,
  type CapabilityStatus,
  capabilityDeclaration,
  findCapabilityConflict,
  isCapability,
} from './capabilities.ts';
import { type CompatOverrides, type CompatProfile, compatProfile, isKnownTo, type Lifetime } from './compat.ts';
import { settingsError } from './errors.ts';
import { checkValue, expectation } from './parameter-type.ts';
import {
  PARAMETER_NAMES,
  type ParameterName,
  type ParameterValue,
  type ParameterValues,
  parameterDeclaration,
} from './parameters.ts';

/** What a migration may ask of its settings. */
export interface SettingsView {
  capability(name: CapabilityName): boolean;
  parameter<N extends ParameterName>(name: N): ParameterValue<N>;
  /** How a machine of this type is spoken of on the wire. */
  dialect(machineType: string): CompatProfile;
  /** Somebody has set it, to whatever value; otherwise it is a default. */
  isGiven(name: SettingName): boolean;
  /** It could be used: vmferry has it, and so had the QEMU of the machine type. */
  isKnown(name: SettingName): boolean;
}

export type SettingName = CapabilityName | ParameterName;

export interface SettingsOptions {
  /** What the QEMU that it is named for does not know is refused. Default: all that vmferry knows may be used. */
  readonly machineType?: string | undefined;
  /** Compat properties switched by hand. */
  readonly compat?: CompatOverrides | undefined;
}

/**
 * The capabilities and parameters of one process. A migration takes a `snapshot` and holds a `lock` while it runs;
 * changes are all-or-nothing, and a refused one throws SettingsError and leaves everything as it was.
 */
export class Settings implements SettingsView {
  #on: ReadonlySet<CapabilityName> = new Set();
  #values: ParameterValues = defaults();
  #compat: CompatOverrides;
  readonly #machineType: string | undefined;
  #given: ReadonlySet<SettingName> = new Set();
  readonly #followers: (() => void)[] = [];
  #locks = 0;

  constructor({ machineType, compat = {} }: SettingsOptions = {}) {
    this.#machineType = machineType;
    this.#compat = compat;
  }

  dialect(machineType: string): CompatProfile {
    return compatProfile(machineType, this.#compat);
  }

  /** Switches compat properties by hand, beside those switched before. Throws SETTINGS_MIGRATION_RUNNING. */
  setCompat(overrides: CompatOverrides): void {
    if (this.#locks > 0) throw running('compat properties');
    this.#compat = { ...this.#compat, ...overrides };
  }

  /** `changed` is called after each change of a capability or parameter. */
  follow(changed: () => void): void {
    this.#followers.push(changed);
  }

  capability(name: CapabilityName): boolean {
    return this.#on.has(name);
  }

  /** Capabilities that can be switched on, in order of declaration, with their state. */
  capabilities(): CapabilityStatus[] {
    const possible = CAPABILITY_NAMES.filter((name) => {
      const declaration = capabilityDeclaration(name);
      return declaration.support === 'yes' && this.#stranger(declaration) === undefined;
    });
    return possible.map((capability) => ({
      capability,
      state: this.#on.has(capability),
    }));
  }

  /** A capability named twice gets its last state. Switching off is never refused for lack of support. */
  setCapabilities(list: readonly CapabilityStatus[]): void {
    if (this.#locks > 0) throw running('capabilities');
    const on = new Set(this.#on);
    for (const { capability, state } of list) {
      if (state) on.add(capability);
      else on.delete(capability);
    }
    for (const name of on) {
      const declaration = capabilityDeclaration(name);
      const { support } = declaration;
      if (support !== 'yes') throw unsupported('capability', name, support.no);
      const stranger = this.#stranger(declaration);
      if (stranger !== undefined) throw unsupported('capability', name, stranger);
    }
    const conflict = findCapabilityConflict(on);
    if (conflict !== undefined) {
      const { name, other, rule } = conflict;
      throw settingsError(
        { code: 'SETTINGS_CONFLICT', name, other },
        rule === 'requires'
          ? `Capability '${name}' requires capability '${other}'`
          : `Capability '${name}' is not compatible with capability '${other}'`,
      );
    }
    requirePlainMappedRam(on, this.#values);
    this.#on = on;
    this.#give(list.map(({ capability }) => capability));
    this.#changed();
  }

  parameter<N extends ParameterName>(name: N): ParameterValue<N> {
    return this.#values[name];
  }

  /** Values as query-migrate-parameters reports them: what the newest QEMU knows, and what was set. */
  parameters(): Partial<ParameterValues> {
    const known = PARAMETER_NAMES.filter((name) => {
      const declaration = parameterDeclaration(name);
      const { removed, hidden } = declaration;
      if (this.#stranger(declaration) !== undefined) return false;
      return (removed === undefined && hidden === undefined) || this.#given.has(name);
    });
    return Object.fromEntries(known.map((name) => [name, this.#values[name]]));
  }

  /** Takes values as they come from outside; each is checked. A migration that runs follows those that are `live`. */
  setParameters(changes: Readonly<Partial<Record<ParameterName, unknown>>>): void {
    const next: Record<string, unknown> = { ...this.#values };
    const names = PARAMETER_NAMES.filter((name) => changes[name] !== undefined);
    for (const name of names) {
      const declaration = parameterDeclaration(name);
      const { type, support, refuses, default: initial } = declaration;
      const stranger = this.#stranger(declaration);
      if (stranger !== undefined) throw unsupported('parameter', name, stranger);
      const value = checkValue(type, changes[name]);
      if (value === undefined) throw badValue(name, changes[name], expectation(type));
      if (support !== 'yes' && String(value) !== String(initial)) throw unsupported('parameter', name, support.no);
      const refused = refuses?.[String(value)];
      if (refused !== undefined) throw unsupported('parameter', `${name}=${value}`, refused);
      next[name] = value;
    }
    const values = next as unknown as ParameterValues;
    if (values['max-cpu-throttle'] < values['cpu-throttle-initial']) {
      throw badValue(
        'max-cpu-throttle',
        values['max-cpu-throttle'],
        'an integer in the range of cpu-throttle-initial to 99',
      );
    }
    requirePlainMappedRam(this.#on, values);
    this.#values = values;
    this.#changed();
    this.#give(names);
  }

  isGiven(name: SettingName): boolean {
    return this.#given.has(name);
  }

  isKnown(name: SettingName): boolean {
    const declaration = isCapability(name) ? capabilityDeclaration(name) : parameterDeclaration(name);
    return declaration.support === 'yes' && this.#stranger(declaration) === undefined;
  }

  #give(names: readonly SettingName[]): void {
    this.#given = new Set([...this.#given, ...names]);
  }

  /** The settings as they are now, for a migration that starts; its `live` parameters go on following this object. */
  snapshot(): SettingsView {
    const on = this.#on;
    const values = this.#values;
    const compat = this.#compat;
    const given = this.#given;
    return {
      dialect: (machineType) => compatProfile(machineType, compat),
      capability: (name) => on.has(name),
      parameter: (name) => (parameterDeclaration(name).live === true ? this.#values[name] : values[name]),
      isGiven: (name) => given.has(name),
      isKnown: (name) => this.isKnown(name),
    };
  }

  #changed(): void {
    for (const changed of this.#followers) changed();
  }

  /** Why the machine type does not know a setting, if it does not. */
  #stranger(lifetime: Lifetime): string | undefined {
    if (this.#machineType === undefined || isKnownTo(this.#machineType, lifetime)) return undefined;
    return `machine type ${this.#machineType} is that of a QEMU that does not know it (since ${lifetime.since})`;
  }

  /** From now until the returned function is called, capabilities cannot be changed. Locks add up. */
  lock(): () => void {
    let held = true;
    this.#locks++;
    return () => {
      if (held) this.#locks--;
      held = false;
    };
  }
}

export interface SettingChanges {
  readonly capabilities?: Partial<Record<CapabilityName, boolean>>;
  readonly parameters?: Partial<ParameterValues>;
  /** Of whatever machine type. */
  readonly compat?: CompatOverrides;
}

/** Those settings, but for what `changes` say. */
export function withChanges(settings: SettingsView, changes: SettingChanges): SettingsView {
  const { capabilities = {}, parameters = {} } = changes;
  return {
    capability: (name) => capabilities[name] ?? settings.capability(name),
    parameter: (name) => (parameters as Partial<ParameterValues>)[name] ?? settings.parameter(name),
    dialect: (machineType) => ({ ...settings.dialect(machineType), ...changes.compat }),
    isGiven: (name) => settings.isGiven(name),
    isKnown: (name) => settings.isKnown(name),
  };
}

function defaults(): ParameterValues {
  return Object.fromEntries(
    PARAMETER_NAMES.map((name) => [name, parameterDeclaration(name).default]),
  ) as unknown as ParameterValues;
}

/** Each page has its place in the file, and that has the size of a page. */
function requirePlainMappedRam(on: ReadonlySet<CapabilityName>, values: ParameterValues): void {
  const method = values['multifd-compression'];
  if (!on.has('mapped-ram') || method === 'none') return;
  throw settingsError(
    { code: 'SETTINGS_CONFLICT', name: 'mapped-ram', other: 'multifd-compression' },
    `Capability 'mapped-ram' is not compatible with multifd-compression '${method}'`,
  );
}

function running(what: string) {
  return settingsError({ code: 'SETTINGS_MIGRATION_RUNNING' }, `A migration is in progress: ${what} cannot be changed`);
}

function unsupported(kind: 'capability' | 'parameter', name: string, reason: string) {
  return settingsError(
    { code: 'SETTINGS_UNSUPPORTED', name, reason },
    `${kind === 'capability' ? 'Capability' : 'Parameter'} '${name}' is not supported: ${reason}`,
  );
}

function badValue(name: string, value: unknown, expected: string) {
  return settingsError(
    { code: 'SETTINGS_BAD_VALUE', name, value, expected },
    `Parameter '${name}' expects ${expected}`,
  );
}
