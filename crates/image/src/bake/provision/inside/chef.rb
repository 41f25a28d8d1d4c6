# Tells Kiln, as one line of JSON behind a record separator (RFC 7464), what became of each resource and where it stands.
require 'json'

module Kiln
  LONGEST = 2000

  def self.text(words)
    words.to_s.encode('UTF-8', invalid: :replace, undef: :replace)[0, LONGEST]
  end

  def self.tell(state, resource, message = nil)
    record = { event: 'result', state: state, what: text(resource), message: message && text(message) }
    if resource.respond_to?(:source_line) && (place = resource.source_line.to_s.match(/\A(?<file>.*?):(?<line>\d+)/))
      record.update(file: place[:file], line: place[:line].to_i)
    end
    $stdout.write("\x1e#{JSON.generate(record.compact)}\n")
    $stdout.flush
  end
end

Chef.event_handler do
  on(:resource_action_start) { |resource, _action, *_| Kiln.tell('begun', resource) }
  on(:resource_up_to_date) { |resource, _action| Kiln.tell('same', resource) }
  on(:resource_skipped) { |resource, _action, _condition| Kiln.tell('skipped', resource) }
  on(:resource_updated) { |resource, _action| Kiln.tell('changed', resource) }
  on(:resource_failed) do |resource, _action, exception|
    Kiln.tell(resource.ignore_failure ? 'ignored' : 'failed', resource, exception.message)
  end
  on(:recipe_file_load_failed) { |path, exception, *_| Kiln.tell('failed', path, exception.message) }
  on(:run_list_expand_failed) { |_node, exception| Kiln.tell('failed', 'the run list', exception.message) }
  on(:cookbook_resolution_failed) { |_list, exception| Kiln.tell('failed', 'the cookbooks', exception.message) }
end
